"""Entrances: how inputs enter a model of which only submodules are called, as in `agent.act(x)`.

As long as the model's own forward does not train, the outermost calls of its submodules are followed. A call
that receives the output of another one belongs to the same forward; its other tensors are model inputs.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree
from torch.utils.hooks import RemovableHandle

from harness.attribution.loss_graph import bypassed
from harness.attribution.model_inputs import map_leaves, map_tensors, storage_of
from harness.hooks._torch import outside_all_transforms, without_transforms
from harness.kernels.countable import has_values
from harness.recording.batches import tensors_in
from harness.recording.listener import Guard

OUTPUT = "\0output"  # marks an output of an earlier call: (OUTPUT, call, index of its tensor)
OPEN = 64  # largest number of unfinished forwards
CHECKED = 8  # calls of a submodule in which the graph of its arguments is checked


@dataclass
class PartsForward:
    """A forward through submodules.

    Attributes:
        calls: name of the submodule, arguments and keyword arguments of each call.
        outputs: the tensors made by each call, and their versions at that time.
        graph: whether autograd recorded it.
    """

    calls: list[tuple[str, Any, dict[str, Any]]] = field(default_factory=list)
    outputs: list[list[tuple[Tensor, int]]] = field(default_factory=list)
    graph: bool = False


class Entrances:
    """Follows the outermost calls of a model's submodules, in training mode.

    Args:
        model: the root module.
        on_inputs: called with a submodule and those of its arguments that are inputs of the model.
        on_output: called with a submodule, its arguments and its output.
        on_forward: called with a completed forward.
        on_enter: called when the model's own forward begins that may train.
        on_root: called when it uses a parameter; from then on submodules are not followed.
        on_idle: called when it has ended without that: it may return a distribution, whose methods call the
            submodules.

    Attributes:
        broken: name of a submodule that received something made from parameters outside of any submodule,
            "" if there is none.
    """

    def __init__(
        self,
        model: nn.Module,
        on_inputs: Callable[[nn.Module, Any, Mapping[str, Any]], Any],
        on_output: Callable[[nn.Module, Any, Any], Any],
        on_forward: Callable[[PartsForward], Any],
        on_enter: Callable[[], Any],
        on_root: Callable[[], Any],
        on_idle: Callable[[], Any],
    ) -> None:
        self._model = model
        self._on_inputs, self._on_output = on_inputs, on_output
        self._on_forward = on_forward
        self._on_enter, self._on_root, self._on_idle = on_enter, on_root, on_idle
        self._handles: list[RemovableHandle] = []
        self._open: deque[PartsForward] = deque()
        self._running: PartsForward | None = None
        self._checked: Counter[str] = Counter()
        self._depth = 0
        self._rooted = self._in_root = False
        self.broken = ""

    def attach(self, guard: Guard) -> None:
        """Start, unless the model's own forward trains."""
        for name, module in () if self._rooted else self._model.named_modules():
            if not isinstance(module, torch.jit.ScriptModule):
                before, after = (
                    guard.hook(partial(self._before, name)),
                    guard.hook(partial(self._after, name)),
                )
                self._handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
                self._handles.append(module.register_forward_hook(after, always_call=True))

    def detach(self) -> None:
        """Remove every hook."""
        while self._handles:
            self._handles.pop().remove()
        self.step()

    def step(self) -> None:
        """Complete a step: all forwards have ended."""
        self._depth, self._in_root = 0, False
        while self._open:
            self._close()

    # --- inside -------------------------------------------------------------------------------------

    def _before(self, name: str, module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        if not name and module.training and torch.is_grad_enabled():
            self._in_root = True
            self._on_enter()
        if self._in_root and any(p is not None for p in module._parameters.values()):
            self._root()
            return
        self._depth += 1
        if self._depth > 1 or not name or not module.training:
            return
        given = tensors_in((args, dict(kwargs)))
        if any(without_transforms(tensor) is None or not has_values(tensor) for tensor in given):
            return  # under vmap members and inputs look alike
        with outside_all_transforms():
            self._enter(name, module, *map_tensors(_plain, (args, dict(kwargs))))

    def _root(self) -> None:
        """Handle that the model's own forward trains."""
        self._rooted, self.broken = True, ""
        self._open.clear()
        self.detach()
        self._on_root()

    def _enter(self, name: str, module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        given: list[Tensor] = []
        forward = self._forward_of(args, kwargs)

        def named(tensor: Tensor) -> Any:
            place = _place(forward, tensor)
            if place is not None:
                return place
            given.append(tensor)
            self._check(name, tensor)
            return tensor.detach().clone()

        copied, named_copies = map_tensors(named, (args, dict(kwargs)))
        if given:
            self._on_inputs(module, tuple(given), {})
        forward.calls.append((name, copied, named_copies))
        forward.outputs.append([])
        forward.graph = forward.graph or torch.is_grad_enabled()
        self._running = forward
        if len(self._open) > OPEN:
            self._close()

    def _after(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        self._depth = max(0, self._depth - 1)
        if not name and self._in_root:
            self._in_root = False
            if any(t.requires_grad for t in tensors_in(_pytree.tree_leaves(output))):
                self._root()  # it uses the parameters of submodules that it does not call
            else:
                self._on_idle()
        if self._depth or not name or self._running is None:
            return
        made = [without_transforms(t) for t in _pytree.tree_leaves(output) if isinstance(t, Tensor)]
        known = [t for t in made if t is not None]
        with outside_all_transforms():
            if len(known) == len(made):
                self._running.outputs[-1] = [(t.detach(), t._version) for t in known]
        self._running = None
        self._on_output(module, args, output)

    def _forward_of(self, args: Any, kwargs: Mapping[str, Any]) -> PartsForward:
        """The forward that a call continues, merging all whose outputs it receives; or a new one."""
        tensors = list(tensors_in((args, dict(kwargs))))
        found = [one for one in self._open if any(_place(one, tensor) is not None for tensor in tensors)]
        if not found:
            self._open.append(PartsForward())
            return self._open[-1]
        first, *others = found
        for other in others:
            before = len(first.calls)
            first.calls += [(name, _moved(a, before), _moved(k, before)) for name, a, k in other.calls]
            first.outputs += other.outputs
            first.graph = first.graph or other.graph
        self._open = deque(one for one in self._open if not any(one is other for other in others))
        return first

    def _check(self, name: str, tensor: Tensor) -> None:
        """Record a submodule whose argument was made unseen from parameters of the model."""
        if self.broken or not tensor.requires_grad or self._checked[name] >= CHECKED:
            return
        self._checked[name] += 1
        if tensor.grad_fn is None:
            made = any(tensor is parameter for parameter in self._model.parameters())
        else:
            made = bypassed(tensor.grad_fn, (), self._model)
        if made:
            self.broken = name

    def _close(self) -> None:
        forward = self._open.popleft()
        if forward.calls:
            self._on_forward(forward)


class Parts(nn.Module):
    """A model in the form of calls of its submodules.

    Args:
        model: the root module.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._parts = dict(model.named_modules())

    def forward(self, *calls: tuple[str, Any, dict[str, Any]]) -> tuple[Tensor, ...]:
        """Run calls as in `PartsForward`; returns all tensors that they make."""
        made: list[list[Tensor]] = []
        for name, args, kwargs in calls:
            output = self._parts[name](*_resolved(args, made), **_resolved(kwargs, made))
            made.append([t for t in _pytree.tree_leaves(output) if isinstance(t, Tensor)])
        return tuple(tensor for outputs in made for tensor in outputs)


def _place(forward: PartsForward, tensor: Tensor) -> tuple[str, int, int] | None:
    """The marker of a tensor made by an earlier call of a forward, unless it was written to since."""
    at = storage_of(tensor)
    for call, outputs in enumerate(forward.outputs):
        for number, (made, version) in enumerate(outputs):
            same = at and at == storage_of(made) and tensor._version == version
            if same and _geometry(tensor) == _geometry(made):
                return OUTPUT, call, number
    return None


def _plain(tensor: Tensor) -> Tensor:
    plain = without_transforms(tensor)
    return tensor if plain is None else plain


def _geometry(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.stride(), tensor.storage_offset()


def _is_output(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 3 and isinstance(value[0], str) and value[0] == OUTPUT


def _moved(value: Any, by: int) -> Any:
    return map_leaves(_is_output, lambda place: (OUTPUT, place[1] + by, place[2]), value)


def _resolved(value: Any, made: list[list[Tensor]]) -> Any:
    return map_leaves(_is_output, lambda place: made[place[1]][place[2]], value)
