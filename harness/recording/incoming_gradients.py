"""grad_norm: norm of the gradient of each unit's incoming parameters, as the optimizer uses it.

It is read in the optimizer's step pre-hook, after unscaling, so that neither the position of `zero_grad` nor
a gradient scaler matters. Only norms are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from harness.hooks._torch import outside_all_transforms
from harness.hooks.captured import is_capturing
from harness.hooks.hook import EagerHook
from harness.kernels import dispatch as kernels
from harness.recording.unit_parameters import by_unit, unit_parameters

FIRST = 16  # number of first optimizer steps in which the kind of the loop is detected


class IncomingGradients:
    """Per-unit norms of the incoming gradients at the last optimizer step of a window.

    Reading every gradient at every step would cost more than all other observation together. After the first
    steps, gradients are therefore read only at steps that may be the last before a scheduled census. At other
    steps they are only kept alive until the next training forward pass begins, in case the user closes the
    window. This does not increase peak memory, which occurs in the backward pass. Loops in which this could
    miss a value are detected and read at every step: gradients zeroed in place, several forward passes or
    `step()` calls per optimizer step, windows closed between a forward pass and its optimizer step. (If a
    loop starts one of these after its first steps, the first such census has NaN.)

    Args:
        optimizers: optimizers whose steps are observed; without any, `.grad` is read on request.
        failed: called with an internal error; from then on there are no norms.
    """

    def __init__(self, optimizers: Sequence[Optimizer], failed: Callable[[Exception], None]) -> None:
        self._optimizers, self._failed = optimizers, failed
        self._producers: dict[int, _Watched] = {}
        self._squares: dict[int, Tensor] = {}
        self._captured: dict[int, Tensor] = {}  # squares in a CUDA graph, which each replay rewrites
        self._owned: dict[int, _Owned] = {}  # id of the optimizer → its watched parameters
        self._handles: list[RemovableHandle] = []
        self._held: _Held | None = None
        self._always = len(optimizers) > 1
        self._steps = self._forwards = 0  # optimizer steps; forward passes since the last one
        self.calls = 0  # the user's `step()` calls since the last optimizer step
        self._with_closure: set[int] = set()  # ids of the optimizers that are called with closures
        self._doubts: list[Tensor] = []  # on a GPU: whether gradients changed; evaluated at a census
        self.closing = False  # whether the next `step()` closes the window

    def attach(self) -> None:
        """Hook the optimizers."""
        for optimizer in self._optimizers:
            self._handles.append(optimizer.register_step_pre_hook(EagerHook(self.stepping, self._stop)))

    def detach(self) -> None:
        """Remove all hooks, and release all gradients."""
        while self._handles:
            self._handles.pop().remove()
        self._with_closure.clear()
        self._held = None

    def add(self, index: int, producer: nn.Module | None, size: int) -> str:
        """Watch the parameters of a site's producer, replacing those of an earlier producer.

        Returns:
            Why the producer's parameters cannot be read; "" if they can, or if there is none.
        """
        if self._producers.pop(index, None) is not None:
            self._owned.clear()
        if producer is None:
            return ""
        parameters, reason = unit_parameters(producer, size)
        if parameters:
            self._producers[index] = _Watched(index, producer, parameters, size)
            self._owned.clear()
        return reason

    # --- events in a training loop ------------------------------------------------------------------

    def forward(self) -> None:
        """Release held gradients when a training forward pass begins."""
        self._forwards += 1
        held, self._held = self._held, None
        if held is not None and held.known:
            try:
                with outside_all_transforms():  # the forward may be under torch.func.grad
                    self._always = self._always or held.changed or held.differs
                    self._doubts += held.doubts()
            except Exception as error:
                self._stop(error)

    def stepping(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Read or hold the final gradients before an optimizer steps."""
        if is_capturing():
            watched, parameters = self._stepped_by(optimizer)
            self._squares, self._held = {}, None  # discard those of earlier steps
            self._captured |= dict(_squares(watched, [p.grad for p in parameters]))
            return
        if (len(args) > 1 or kwargs) and _closure_in(args, kwargs):
            if id(optimizer) not in self._with_closure:
                self._with_closure.add(id(optimizer))
                self._always = True
                self._handles.append(optimizer.register_step_post_hook(EagerHook(self._stepped, self._stop)))
            return
        if self._forwards > 1 or self.calls > 1:
            self._always = True
        self._steps += 1
        self._forwards = self.calls = 0
        watched, parameters = self._stepped_by(optimizer)
        gradients = [p.grad for p in parameters]
        trial = self._steps <= FIRST or self._steps & (self._steps - 1) == 0
        scale = getattr(optimizer, "grad_scale", None)  # a fused optimizer unscales by itself
        if trial or self.closing or self._always or scale is not None:
            self._take(watched, gradients, scale)
            self._held = _Held(watched, gradients, dict(self._squares)) if trial else None
        else:
            self._squares.clear()  # discard those of an earlier step
            self._held = _Held(watched, gradients, {})

    def _stepped(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Read gradients after a step with a closure, which computes them itself."""
        if not _closure_in(args, kwargs):
            return
        self._steps += 1
        self._forwards = self.calls = 0
        watched, parameters = self._stepped_by(optimizer)
        self._take(watched, [p.grad for p in parameters], None)

    # --- censuses -----------------------------------------------------------------------------------

    def close(self, index: int, size: int) -> np.ndarray:
        """Return the norms (F,) for the current census; NaN if unknown."""
        try:
            squares = self._squares_of(index)
            if squares is not None:
                whole = getattr(squares, "full_tensor", None)  # exists for sharded parameters
                return np.sqrt((squares if whole is None else whole()).cpu().numpy())
        except Exception as error:
            self._stop(error)
        return np.full(size, np.nan)

    def _squares_of(self, index: int) -> Tensor | None:
        if self._doubts:
            if any(bool(doubt) for doubt in self._doubts):
                self._always, self._held = True, None
            self._doubts.clear()
        if self._held is not None and not self._held.known and not self._held.changed:
            self._take(self._held.watched, self._held.gradients, None)
        self._held = None
        if not self._optimizers and index in self._producers:
            watched = _current(self._producers[index])
            self._take([watched], [p.grad for p in watched.parameters], None)
        return self._squares.get(index, self._captured.get(index))

    def clear(self) -> None:
        """Start a new window."""
        self._always = self._always or (self._forwards > 0 and self._steps > 0)
        self._squares = {}
        self._held = None

    # --- inside -------------------------------------------------------------------------------------

    def _stop(self, error: Exception) -> None:
        """Stop watching after an error."""
        self._producers, self._owned, self._squares = {}, {}, {}
        self._held = None
        self._doubts.clear()
        self._failed(error)

    def _stepped_by(self, optimizer: Optimizer) -> tuple[list[_Watched], list[nn.Parameter]]:
        """Return the watched layers of an optimizer, and their parameters in that order."""
        groups, owned = optimizer.param_groups, self._owned.get(id(optimizer))
        total = sum([len(group["params"]) for group in groups])
        if owned is None or owned.total != total:  # parameters can be added later
            ids = {id(p) for group in groups for p in group["params"]}
            watched = [_current(w) for w in self._producers.values()]
            watched = [w for w in watched if id(w.parameters[0]) in ids]
            owned = _Owned(total, watched, [p for w in watched for p in w.parameters])
            self._owned[id(optimizer)] = owned
        return owned.watched, owned.parameters

    def _take(
        self, watched: Sequence[_Watched], gradients: Sequence[Tensor | None], scale: Tensor | None
    ) -> None:
        for index, squares in _squares(watched, gradients):
            self._squares[index] = squares if scale is None else squares / scale.double().square()


def _closure_in(args: Any, kwargs: Any) -> bool:
    """Whether an optimizer's `step` was called with a closure; args begins with the optimizer."""
    return any(callable(given) for given in (*args[1:], *kwargs.values()))


def _squares(watched: Sequence[_Watched], gradients: Sequence[Tensor | None]) -> Iterator[tuple[int, Tensor]]:
    """Yield each site and the squares of its units, for gradients in the order of the watched parameters."""
    rest = iter(gradients)
    for one in watched:
        there = [by_unit(g, one.producer) for g in islice(rest, len(one.parameters)) if g is not None]
        if there:
            yield one.site, kernels.unit_squares(there[0], there[1] if len(there) > 1 else None)


def _current(watched: _Watched) -> _Watched:
    """With the parameters that the layer has now: in a forward, FSDP puts whole ones in their places."""
    now, _ = unit_parameters(watched.producer, watched.size)
    return watched._replace(parameters=now) if now else watched


def _differ(now: Tensor, before: Tensor) -> Tensor:
    """Whether sums of squares differ beyond rounding, which depends on memory alignment."""
    return ~torch.isclose(now, before, rtol=1e-9, atol=0.0, equal_nan=True).all()


class _Watched(NamedTuple):
    """A site's layer, and its parameters that have one part per unit."""

    site: int
    producer: nn.Module
    parameters: list[nn.Parameter]
    size: int


class _Owned(NamedTuple):
    """The watched parameters of an optimizer with `total` parameters."""

    total: int
    watched: list[_Watched]
    parameters: list[nn.Parameter]


class _Held:
    """The gradients of an optimizer step, kept alive for a while; `known` holds their squares, if read."""

    __slots__ = ("_versions", "gradients", "known", "watched")

    def __init__(
        self, watched: Sequence[_Watched], gradients: Sequence[Tensor | None], known: dict[int, Tensor]
    ) -> None:
        self.watched, self.gradients, self.known = watched, gradients, known
        self._versions = [-1 if g is None else g._version for g in gradients]

    @property
    def changed(self) -> bool:
        """Whether a gradient has been modified in place since."""
        return self._versions != [-1 if g is None else g._version for g in self.gradients]

    @property
    def differs(self) -> bool:
        """Whether squares on the CPU have changed, which also detects writes through `.data`."""
        return any(bool(_differ(*pair)) for pair in self._pairs() if pair[0].is_cpu)

    def doubts(self) -> list[Tensor]:
        """Like `differs`, as one tensor for each layer on a GPU, without synchronising."""
        return [
            _differ(now, before) for now, before in self._pairs() if not now.is_cpu and type(now) is Tensor
        ]

    def _pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the squares of each layer's units: current ones, and those read before."""
        for index, squares in _squares(self.watched, self.gradients):
            if index in self.known:
                yield squares, self.known[index]
