"""One forward pass, followed: which layer makes a site's units, and which layers read them.

Everything is followed from tensor to tensor, whatever the order of the modules. Only what is known to hand on
each unit by itself, and a zero as a zero, is followed (views, pooling, dropout); whatever else reads a unit
is remembered as the reason why it cannot be replaced.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree

from harness.activations import functional
from harness.hooks.sites import Site
from harness.remedies import marks as m

CONVOLUTIONS = {"conv1d": 1, "conv2d": 2, "conv3d": 3}
POOLS = {f"{a}{kind}_pool{d}d": d for a in ("", "adaptive_") for kind in ("max", "avg") for d in (1, 2, 3)}
NORMS = ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm")
MIXING = ("layer_norm", "group_norm", "rms_norm")  # what a unit gets depends on the others
MOVES = {"flatten", "reshape", "view", "permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims"}
MOVES |= {"squeeze", "unsqueeze", "unflatten", "t", "__getitem__", "chunk", "split", "narrow", "select"}
MOVES |= {"unbind", "expand", "expand_as", "view_as", "reshape_as", "adjoint", "ravel"}
TURNS = {"T", "mT"}  # attributes
SAME = {"contiguous", "clone", "detach", "to", "float", "double", "half", "bfloat16", "type_as", "data"}
SAME |= {"dropout", "dropout1d", "dropout2d", "dropout3d", "feature_dropout", "dropout_"}
REDUCTIONS = {"mean", "sum", "amax"}
SUMS = {"add", "add_", "__add__", "__radd__", "__iadd__", "sub", "__sub__", "__rsub__"}


class Outlet(NamedTuple):
    """A layer that reads a site's units.

    Attributes:
        layer: a Linear or a convolution.
        columns: (inputs of the layer,) int64, the unit that each input column belongs to.
    """

    layer: nn.Module
    columns: Tensor


@dataclass(eq=False)
class Path:
    """The way of one layer's units through the forward pass, as far as it has been followed."""

    layer: nn.Module
    norm: nn.Module | None = None
    site: Site | None = None
    outlets: list[Outlet] = field(default_factory=list)
    problem: str = ""  # why its units cannot be replaced one by one

    def refuse(self, reason: str) -> None:
        """The first reason stays."""
        self.problem = self.problem or reason


class Flow(NamedTuple):
    """What is known of a tensor: whose units its entries are, before or after the activation."""

    path: Path
    marks: Tensor
    after: bool = False


Seen = Callable[[Path, Tensor, Tensor], None]  # (path, tensor, marks)


class Tracer(TorchFunctionMode):
    """Follows the forward pass that runs while it is entered.

    Args:
        model: the root.
        opened: hands over the site of the activation call now running, None if it was called before.
        before: told of each followed pre-activation, which it may change in place.
        after: told of the activation's output.
    """

    def __init__(
        self, model: nn.Module, opened: Callable[[], Site | None], before: Seen | None, after: Seen | None
    ) -> None:
        super().__init__()
        self._opened, self._before, self._after = opened, before, after
        self._owners: dict[int, nn.Module] = {}
        self._tied: set[int] = set()
        for module in model.modules():
            for value in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                if id(value) in self._owners:
                    self._tied.add(id(value))
                self._owners[id(value)] = module
        self._flows: dict[int, tuple[weakref.ref[Tensor], Flow]] = {}
        self._inside = 0  # calls of activation modules, whose functions are their own
        self._held: Flow | None = None
        self._calls: Counter[nn.Module] = Counter()
        self.paths: list[Path] = []
        self.refused: dict[str, str] = {}

    # --- what runs ----------------------------------------------------------------------------------

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._inside:
            return func(*args, **kwargs)
        found = functional.bound(func, args, kwargs, lambda t: self.flow(t) is not None, _is_zero)
        if found is not None and functional.gate(found[0], found[2], 0.0) is not None:
            flow = self._enters(found[1])
            out = func(*args, **kwargs)
            self._leaves(flow, out, self._opened())
            return out
        out = func(*args, **kwargs)
        self._follow(_name(func), args, kwargs, out)
        return out

    def entering(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """An activation module is called."""
        self._inside += 1
        if self._inside == 1:
            value = args[0] if args else next(iter(kwargs.values()), None)
            self._held = self._enters(value) if isinstance(value, Tensor) else None

    def leaving(self, module: nn.Module, args: Any, out: Any) -> None:
        """It has been called."""
        if self._inside == 1:
            self._leaves(self._held, out, self._opened())
        self._inside -= 1

    def finish(self, output: Any) -> None:
        """The forward pass is over: nothing that is given out may be taken from behind its back."""
        leaves = _pytree.tree_leaves(output)
        for leaf in _tensors(
            [list(vars(x).values()) if hasattr(x, "__dict__") else x for x in leaves] + leaves
        ):
            flow = self.flow(leaf)
            if flow is not None:
                flow.path.refuse("it is part of the model's output")
        for path in self.paths:
            if self.calls(path.layer, path.norm, *(outlet.layer for outlet in path.outlets)) > 1:
                path.refuse("a layer before or behind it is called more than once in a forward pass")
            if not path.outlets:
                path.refuse("no layer that reads it was found")

    def calls(self, *modules: nn.Module | None) -> int:
        """The most calls that one of some layers had."""
        return max(self._calls[module] for module in modules if module is not None)

    def flow(self, tensor: Tensor) -> Flow | None:
        """What is known of a tensor."""
        found = self._flows.get(id(tensor))
        return found[1] if found is not None and found[0]() is tensor else None

    # --- activations --------------------------------------------------------------------------------

    def _enters(self, z: Tensor) -> Flow | None:
        flow = self.flow(z)
        if flow is not None and not flow.after and flow.path.site is None and self._before is not None:
            self._before(flow.path, z, flow.marks)
        return flow

    def _leaves(self, flow: Flow | None, out: Any, site: Site | None) -> None:
        if flow is None:
            if site is not None:
                self.refused[site.name] = "no single layer makes its pre-activation (a residual sum, say)"
            return
        if site is not None and (flow.after or flow.path.site is not None):
            self.refused[site.name] = "its input is that of another activation too, or its output"
            flow.path.refuse("another activation reads the same units")
            return
        if site is None:
            flow.path.refuse("its activation is called more than once in a forward pass")
            return
        flow.path.site = site
        if not isinstance(out, Tensor) or out.shape != flow.marks.shape:
            flow.path.refuse(f"{site.activation} gives more outputs than it has units")
            return
        if self._after is not None:
            self._after(flow.path, out, flow.marks)
        self._put(out, Flow(flow.path, flow.marks, after=True))

    # --- everything else ----------------------------------------------------------------------------

    def _follow(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> None:
        values = [*args, *kwargs.values()]
        if name == "linear" or name in CONVOLUTIONS:
            bound = dict(zip(("input", "weight"), args, strict=False)) | dict(kwargs)
            self._layer(name, bound["input"], bound["weight"], values, out)
            return
        flows = [flow for flow in map(self.flow, _tensors(values)) if flow is not None]
        if not flows or not any(True for _ in _tensors([out])):
            return  # of no layer of ours, or a size, a shape, a decision
        first = args[0] if args and isinstance(args[0], Tensor) else None
        flow = self.flow(first) if first is not None and len(flows) == 1 else None
        moved = None if flow is None else self._moved(name, flow, args, kwargs, values, out)
        if flow is None or moved is None:
            for one in flows:
                one.path.refuse(_words(name))
            return
        outs, new = (list(_tensors([x])) for x in (out, moved))
        for tensor, mark in zip(outs, new, strict=False):
            self._put(tensor, flow._replace(marks=mark))

    def _moved(
        self,
        name: str,
        flow: Flow,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        values: Sequence[Any],
        out: Any,
    ) -> Any:
        """The marks of the output(s), or None where units are mixed or the function is not known."""
        if name in NORMS and not flow.after:
            return self._normed(name, flow, values)
        if name in SAME:
            return flow.marks if flow.marks.shape == out.shape else None
        if name in MOVES or name in TURNS:
            return _repeat(name, flow.marks, args, kwargs, out)
        if name in POOLS:
            whole = out[0] if isinstance(out, tuple) else out
            pooled = m.reduced(flow.marks, list(range(-POOLS[name], 0)), keep=True)
            return None if pooled is None else pooled.expand(whole.shape)
        if name == "interpolate" and flow.marks.ndim > 2:
            pooled = m.reduced(flow.marks, list(range(2 - flow.marks.ndim, 0)), keep=True)
            return None if pooled is None else pooled.expand(out.shape)
        axes = kwargs.get("dim", args[1] if len(args) > 1 else None)
        if name in REDUCTIONS and flow.after and axes is not None and not isinstance(axes, torch.dtype):
            listed = [axes] if isinstance(axes, int) else list(axes)
            return m.reduced(flow.marks, listed, keep=out.ndim == flow.marks.ndim)
        return None

    def _normed(self, name: str, flow: Flow, values: Sequence[Any]) -> Tensor | None:
        if flow.path.norm is not None:
            return None
        owned = [t for t in _tensors(values[1:]) if id(t) in self._owners]
        if any(id(t) in self._tied for t in owned):
            flow.path.refuse("it shares parameters with another layer")
        if owned:
            flow.path.norm = self._owners[id(owned[0])]
            self._calls[flow.path.norm] += 1
        if name in MIXING:
            flow.path.refuse(f"{name} stands before it: a new unit would change what the others get")
        axis = -1 if name in ("layer_norm", "rms_norm") else 1
        columns = m.along(flow.marks, axis)
        ordered = columns is not None and torch.equal(
            columns, torch.arange(len(columns), device=columns.device)
        )
        return flow.marks if ordered else None

    def _layer(self, name: str, x: Any, weight: Any, values: Sequence[Any], out: Tensor) -> None:
        flow = self.flow(x) if isinstance(x, Tensor) else None
        layer = self._owners.get(id(weight))
        known = isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
        single = known and getattr(layer, "groups", 1) == 1
        axis = -1 if name == "linear" else -CONVOLUTIONS[name] - 1
        for other in _tensors(values[1:]):  # a weight computed from units
            found = self.flow(other)
            if found is not None:
                found.path.refuse(_words(name))
        if layer is not None and known:
            self._calls[layer] += 1
        if flow is not None:
            columns = m.along(flow.marks, axis)
            if not flow.after:
                flow.path.refuse("its pre-activation is read by another layer")
            elif layer is None or not single or columns is None:
                flow.path.refuse("the layer that reads it is not a plain Linear or convolution")
            else:
                flow.path.outlets.append(Outlet(layer, columns))
        if layer is None or not known:
            return
        path = Path(layer)
        self.paths.append(path)
        if id(weight) in self._tied:
            path.refuse("it shares parameters with another layer")
            if flow is not None:
                flow.path.refuse("the layer that reads it shares parameters with another")
        self._put(out, Flow(path, m.fresh(out, axis)))

    def _put(self, tensor: Tensor, flow: Flow) -> None:
        self._flows[id(tensor)] = (weakref.ref(tensor), flow)


def _repeat(name: str, marks: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Any:
    """What moves entries about, done to the marks; None if they come out otherwise."""
    if name in TURNS:
        done = getattr(marks, name)
    else:
        done = getattr(marks.contiguous() if name == "view" else marks, name)(*args[1:], **kwargs)
    same = [a.shape == b.shape for a, b in zip(_tensors([done]), _tensors([out]), strict=True)]
    return done if all(same) else None


def _name(function: Any) -> str:
    """Of a function, or of the attribute that is read."""
    name = getattr(function, "__name__", str(function))
    return getattr(function.__self__, "__name__", name) if name == "__get__" else name


def _words(name: str) -> str:
    if name in SUMS:
        return "it is added to something else (a residual sum)"
    return f"it goes through {name}, which is not followed"


def _is_zero(tensor: Tensor) -> bool:
    return not bool(tensor.any())


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _tensors(value)
