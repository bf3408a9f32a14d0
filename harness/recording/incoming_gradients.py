"""grad_norm: the gradient of each unit's incoming parameters, as the optimizer uses it.

Read in the optimizer's step-pre hook, after unscaling, so that neither the order of `zero_grad` nor a
gradient scaler matters; only the norms are kept, never a gradient.
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

from harness.activations.stored import stored
from harness.graph.layers import LAYERS
from harness.hooks._torch import outside_all_transforms
from harness.hooks.captured import is_capturing
from harness.hooks.hook import EagerHook
from harness.kernels import dispatch as kernels

FIRST = 16  # optimizer steps in which a loop shows what it does
TRANSPOSED = nn.modules.conv._ConvTransposeNd


def unit_parameters(producer: nn.Module | None, size: int) -> list[nn.Parameter]:
    """The parameters of a layer that belong to single units: weight and bias, γ and β."""
    if producer is None or isinstance(producer, nn.Embedding | nn.EmbeddingBag):
        return []
    own = [stored(producer, name) for name in ("weight", "bias")]
    groups = producer.groups if isinstance(producer, TRANSPOSED) else 1
    weight = own[0]
    if not isinstance(producer, LAYERS) and isinstance(weight, Tensor) and weight.shape == (size, size):
        return []  # its rows or its columns: nobody can tell
    rows = [(p, int(name == 0 and has_columns(producer))) for name, p in enumerate(own)]
    return [
        p
        for p, axis in rows
        if isinstance(p, nn.Parameter)
        and p.shape[axis : axis + 1] == (size if p.ndim == 1 else size // groups,)
    ]


def by_unit(gradient: Tensor, producer: nn.Module) -> Tensor:
    """A parameter's gradient with the units on axis 0, wherever the layer has them."""
    if gradient.ndim == 1 or not has_columns(producer):
        return gradient
    if not isinstance(producer, TRANSPOSED):
        return gradient.T
    inputs, outputs = gradient.shape[:2]
    grouped = gradient.reshape(producer.groups, inputs // producer.groups, outputs, -1)
    return grouped.transpose(1, 2).reshape(producer.groups * outputs, -1)


def has_columns(producer: nn.Module) -> bool:
    """Whether the units are on axis 1 of the weight: a transposed convolution, or a matrix `x @ weight`."""
    if isinstance(producer, TRANSPOSED):
        return True
    weight, bias = stored(producer, "weight"), stored(producer, "bias")
    if isinstance(producer, LAYERS) or not isinstance(weight, Tensor) or not isinstance(bias, Tensor):
        return False
    return weight.ndim == 2 and weight.shape[0] != weight.shape[1] == bias.numel()


class IncomingGradients:
    """Per-unit norms of the incoming gradients at the last optimizer step of a window.

    Reading every gradient at every step would cost more than all other observation together. So, after the
    first steps, only those are read that may be the last before a scheduled census. At other steps the
    gradients are merely kept alive until the next training forward begins, in case the window is closed by
    hand: memory at its highest, in the backward pass, does not grow. Loops in which that could miss a value
    are known by what they do, and are read at every step: gradients zeroed in place, several forwards or
    `step()` calls for one optimizer step, windows closed between a forward and its optimizer step. (A loop
    that begins one of these after its first steps has NaN in the first such census.)

    Args:
        optimizers: whose steps are watched; without any, `.grad` is read when asked.
        failed: takes an error of its own; from then on there is no norm.
    """

    def __init__(self, optimizers: Sequence[Optimizer], failed: Callable[[Exception], None]) -> None:
        self._optimizers, self._failed = optimizers, failed
        self._producers: dict[int, _Watched] = {}
        self._squares: dict[int, Tensor] = {}
        self._captured: dict[int, Tensor] = {}  # of a CUDA graph's steps: each replay writes them anew
        self._owned: dict[int, _Owned] = {}  # by id of the optimizer
        self._handles: list[RemovableHandle] = []
        self._held: _Held | None = None
        self._always = len(optimizers) > 1
        self._steps = self._forwards = 0  # of the optimizer; since its last step
        self.calls = 0  # of the user's `step()`, since then
        self._with_closure: set[int] = set()  # ids of the optimizers that are given closures
        self._doubts: list[Tensor] = []  # on a device: whether gradients were found changed; a census asks
        self.closing = False  # whether the next `step()` closes the window

    def attach(self) -> None:
        """Hook the optimizers."""
        for optimizer in self._optimizers:
            self._handles.append(optimizer.register_step_pre_hook(EagerHook(self.stepping, self._stop)))

    def detach(self) -> None:
        """Leave no hook behind, and keep no gradient."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._with_closure.clear()
        self._held = None

    def add(self, index: int, producer: nn.Module | None, size: int) -> None:
        """Watch the parameters of a site's producer, in place of those of an earlier one."""
        parameters = unit_parameters(producer, size)
        if self._producers.pop(index, None) is not None:
            self._owned.clear()
        if producer is not None and parameters:
            self._producers[index] = _Watched(index, producer, parameters)
            self._owned.clear()

    # --- what happens in a loop ---------------------------------------------------------------------

    def forward(self) -> None:
        """A training forward begins: nothing is kept alive beyond here."""
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
        """An optimizer is about to step: its gradients are final."""
        if is_capturing():
            watched, parameters = self._stepped_by(optimizer)
            self._squares, self._held = {}, None  # of steps before it
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
            self._squares.clear()  # of an earlier step
            self._held = _Held(watched, gradients, {})

    def _stepped(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """A step that made its gradients itself, in a closure: they are read behind it."""
        if not _closure_in(args, kwargs):
            return
        self._steps += 1
        self._forwards = self.calls = 0
        watched, parameters = self._stepped_by(optimizer)
        self._take(watched, [p.grad for p in parameters], None)

    # --- censuses -----------------------------------------------------------------------------------

    def close(self, index: int, size: int) -> np.ndarray:
        """Norms (F,) for the census that closes now; NaN where none is known."""
        try:
            squares = self._squares_of(index)
            if squares is not None:
                whole = getattr(squares, "full_tensor", None)  # of sharded parameters
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
            watched = self._producers[index]
            self._take([watched], [p.grad for p in watched.parameters], None)
        return self._squares.get(index, self._captured.get(index))

    def clear(self) -> None:
        """A new window begins."""
        self._always = self._always or (self._forwards > 0 and self._steps > 0)
        self._squares = {}
        self._held = None

    # --- inside -------------------------------------------------------------------------------------

    def _stop(self, error: Exception) -> None:
        """Watch nothing any more."""
        self._producers, self._owned, self._squares = {}, {}, {}
        self._held = None
        self._doubts.clear()
        self._failed(error)

    def _stepped_by(self, optimizer: Optimizer) -> tuple[list[_Watched], list[nn.Parameter]]:
        """What an optimizer steps, and all its parameters in that order."""
        groups, owned = optimizer.param_groups, self._owned.get(id(optimizer))
        total = sum([len(group["params"]) for group in groups])
        if owned is None or owned.total != total:  # parameters may be added
            ids = {id(p) for group in groups for p in group["params"]}
            watched = [w for w in self._producers.values() if id(w.parameters[0]) in ids]
            owned = _Owned(total, watched, [p for w in watched for p in w.parameters])
            self._owned[id(optimizer)] = owned
        return owned.watched, owned.parameters

    def _take(
        self, watched: Sequence[_Watched], gradients: Sequence[Tensor | None], scale: Tensor | None
    ) -> None:
        for index, squares in _squares(watched, gradients):
            self._squares[index] = squares if scale is None else squares / scale.double().square()


def _closure_in(args: Any, kwargs: Any) -> bool:
    """Whether an optimizer's `step` was given a closure; args begins with the optimizer."""
    return any(callable(given) for given in (*args[1:], *kwargs.values()))


def _squares(watched: Sequence[_Watched], gradients: Sequence[Tensor | None]) -> Iterator[tuple[int, Tensor]]:
    """Site and squares of its units, for gradients in the order of the watched parameters."""
    rest = iter(gradients)
    for one in watched:
        there = [by_unit(g, one.producer) for g in islice(rest, len(one.parameters)) if g is not None]
        if there:
            yield one.site, kernels.unit_squares(there[0], there[1] if len(there) > 1 else None)


def _differ(now: Tensor, before: Tensor) -> Tensor:
    """Whether sums of squares are others, by more than their order makes, which depends on addresses."""
    return ~torch.isclose(now, before, rtol=1e-9, atol=0.0, equal_nan=True).all()


class _Watched(NamedTuple):
    """A site's layer, and its parameters that belong to single units."""

    site: int
    producer: nn.Module
    parameters: list[nn.Parameter]


class _Owned(NamedTuple):
    """What is watched of an optimizer's parameters, of which there are `total`."""

    total: int
    watched: list[_Watched]
    parameters: list[nn.Parameter]


class _Held:
    """The gradients of an optimizer step, kept alive for a while; `known`: their squares, if taken."""

    __slots__ = ("_versions", "gradients", "known", "watched")

    def __init__(
        self, watched: Sequence[_Watched], gradients: Sequence[Tensor | None], known: dict[int, Tensor]
    ) -> None:
        self.watched, self.gradients, self.known = watched, gradients, known
        self._versions = [-1 if g is None else g._version for g in gradients]

    @property
    def changed(self) -> bool:
        """Whether one was written to since."""
        return self._versions != [-1 if g is None else g._version for g in self.gradients]

    @property
    def differs(self) -> bool:
        """Whether their squares are others now: writing through `.data` leaves no other trace."""
        return any(bool(_differ(*pair)) for pair in self._pairs() if pair[0].is_cpu)

    def doubts(self) -> list[Tensor]:
        """As `differs`, one for each layer on a device, which is not asked."""
        return [
            _differ(now, before) for now, before in self._pairs() if not now.is_cpu and type(now) is Tensor
        ]

    def _pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Squares of the units of a layer: now, and when they were taken."""
        for index, squares in _squares(self.watched, self.gradients):
            if index in self.known:
                yield squares, self.known[index]
