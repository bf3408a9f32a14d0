"""Own parameters: which entries of a model's parameters make which unit of a site, however it is written.

A parameter belongs to a site if each of its entries acts on one unit alone. Autograd shows this: with weights
c on the units, the gradient of the pre-activation's sum is c times the plain one, entry by entry.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from harness.attribution.model_inputs import storage_of
from harness.attribution.replay import Replay, unit_rows
from harness.attribution.snapshots import Snapshot, Values
from harness.graph.operations import CONVOLUTIONS, LAST_AXIS, NORMS, PRODUCTS, function_name
from harness.graph.units import UnitLayout, arranged
from harness.recording.batches import tensors_in
from harness.recording.windows import WindowAccumulator

CLOSE = 1e-3  # relative difference at which gradients are the same
ADDED = 1e-5  # the same for added parameters: one that scales a near-constant input almost looks added


@dataclass
class OwnParameters:
    """The parameters of one site's units.

    Attributes:
        axes: name of a parameter → its axes that count the units, in the units' order.
        biases: those that are added to the pre-activation.
        source: as in `harness.attribution.replay.Layer.source`.
    """

    axes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    biases: tuple[str, ...] = ()
    source: str = "layers"

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of the parameters that are not biases."""
        return tuple(name for name in self.axes if name not in self.biases)

    def matrix(self, values: Values) -> str | None:
        """The largest weight with several entries per unit; None if there is none."""
        names = [name for name in self.weights if values[name].ndim > len(self.axes[name])]
        return max(names, key=lambda name: values[name].numel(), default=None)

    @property
    def factors(self) -> dict[str, str]:
        """Name of a parameter → the factor it belongs to."""
        return {name: "bias" if name in self.biases else "weights" for name in self.axes}

    def rows(self, name: str, value: Tensor) -> Tensor:
        """A parameter's entries, (units, entries per unit)."""
        axes = self.axes[name]
        moved = value.movedim(axes, tuple(range(len(axes))))
        return moved.reshape(math.prod(moved.shape[: len(axes)]), -1)

    def without_mean(self, name: str, value: Tensor) -> Tensor:
        """A parameter minus the mean of each unit's entries."""
        others = [axis for axis in range(value.ndim) if axis not in self.axes[name]]
        return value - value.mean(others, keepdim=True) if others else value


def own_parameters(
    replay: Replay, snapshot: Snapshot, sites: Collection[str], behind: str = "layers"
) -> dict[str, OwnParameters]:
    """Site name → its own parameters; sites without any are left out.

    Args:
        replay: replay of the model.
        snapshot: its first inputs are run through the model once.
        sites: names of the sites to examine. Sites with one unit are left out: everything below acts on it.
        behind: the source of anything that is neither a model input nor made by a norm.
    """
    found: dict[str, OwnParameters] = {}
    trained = {name for name, _ in replay.model.named_parameters()}
    one = Snapshot(snapshot.values, snapshot.inputs[:1])
    leaves: Values = {}
    products = Products(leaves, one, behind)

    def ask(caller: Any, site: str, z: Tensor, layout: UnitLayout) -> None:
        if site in sites and site not in found:
            own = _own(z, layout, {k: v for k, v in leaves.items() if v.requires_grad})
            if own.axes:
                own.source = next((products.sources[n] for n in own.weights if n in products.sources), behind)
                found[site] = own

    taps = replay.taps(WindowAccumulator("stream"))
    taps.counter.on_call = ask
    with replay.observing(), products, torch.enable_grad(), taps.attached():
        for _ in replay.outputs(one, trained, leaves):
            pass
    return found


class Products(TorchFunctionMode):
    """Records what is multiplied with which parameter.

    Args:
        values: name → parameter of the running pass.
        snapshot: snapshot of the pass; its inputs are the model's.
        behind: as in `own_parameters`.

    Attributes:
        weights: name of a parameter → the factor used in its place (such as a normalised weight, same shape).
        sources: name of a parameter → the source of its first other factor.
        moments: name of a parameter → number of inputs, Σx, Σx² of its other factors.
    """

    def __init__(self, values: Values, snapshot: Snapshot, behind: str = "layers") -> None:
        super().__init__()
        self._values, self._behind = values, behind
        self._given = {storage_of(tensor) for tensor in tensors_in(snapshot.inputs)}
        self._normed: dict[int, Tensor] = {}  # kept alive, so that their memory is not reused
        self._derived: dict[int, tuple[Tensor, frozenset[str]]] = {}
        self._ran = False
        self.weights: Values = {}
        self.sources: dict[str, str] = {}
        self.moments: dict[str, tuple[int, Any, Any]] = {}

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function_name(function)
        out = function(*args, **(kwargs or {}))
        if not isinstance(out, Tensor):
            return out
        operands = list(tensors_in((args, kwargs or {})))
        if name in NORMS:
            self._normed[storage_of(out)] = out
        elif name in PRODUCTS or name in CONVOLUTIONS or name in LAST_AXIS:
            self._note(name, operands)
            self._ran = True
        elif operands:
            made = [self._names(tensor) for tensor in operands]
            if all(made) and not self._names(out):
                self._derived[storage_of(out)] = out, frozenset().union(*made)
        return out

    def _names(self, tensor: Tensor) -> frozenset[str]:
        """The parameters that a tensor is, or is computed from alone."""
        at = storage_of(tensor)
        if at in self._derived:
            return self._derived[at][1]
        return frozenset(name for name, value in self._values.items() if storage_of(value) == at)

    def _note(self, name: str, operands: Sequence[Tensor]) -> None:
        weights = [(self._names(tensor), tensor) for tensor in operands]
        rest = [t.detach() for names, t in weights if not names and t.layout is torch.strided]
        rest = [t for t in rest if t.is_floating_point() and t.ndim]
        if not rest:
            return
        x = rest[0]
        at = storage_of(x)
        own = at in self._given or not self._ran
        source = "norm" if at in self._normed else "inputs" if own else self._behind
        axis = -CONVOLUTIONS[name] - 1 if name in CONVOLUTIONS and name != "convolution" else -1
        if name in PRODUCTS and operands[0] is not x and x.ndim > 1 and name != "einsum":
            axis = -2 if operands[-1] is x else -1  # the weight is the left factor
        rows = unit_rows(x, axis).double()
        for names, weight in weights:
            for key in names:
                self.sources.setdefault(key, source)
                if weight.shape == self._values[key].shape:
                    self.weights.setdefault(key, weight.detach().clone())
                n, total, squares = self.moments.get(key, (0, 0.0, 0.0))
                self.moments[key] = n + len(rows), total + rows.sum(0), squares + rows.square().sum(0)


def _own(z: Tensor, layout: UnitLayout, leaves: Values) -> OwnParameters:
    """Which leaves belong to a pre-activation's units."""
    y = arranged(z, layout)
    axes = sorted(axis % y.ndim for axis in layout.axes)
    sizes = tuple(y.shape[axis] for axis in axes)
    if not y.requires_grad or math.prod(sizes) < 2:
        return OwnParameters()
    draw = torch.Generator().manual_seed(0)
    c = torch.rand(sizes, generator=draw).to(y) + 0.5  # weight of each unit
    shape = [size if axis in axes else 1 for axis, size in enumerate(y.shape)]
    first = next((axis for axis in range(y.ndim) if axis not in axes and y.shape[axis] > 1), None)
    others = [size if axis == first else 1 for axis, size in enumerate(y.shape)]
    r = torch.rand(others, generator=draw).to(y) + 0.5  # weight of each input
    names = list(leaves)

    def gradients(weights: Tensor) -> dict[str, Tensor]:
        there, given = [leaves[name] for name in names], weights.expand(y.shape)
        with torch.enable_grad():
            found = torch.autograd.grad(
                arranged(z, layout), there, given, retain_graph=True, allow_unused=True
            )
        return {name: g.double() for name, g in zip(names, found, strict=True) if g is not None}

    plain, weighted = gradients(r), gradients(r * c.reshape(shape))
    own = {}
    for name, gradient in plain.items():
        for places, by_unit in _layouts(gradient, c.double()):
            if _close(weighted[name], by_unit * gradient):
                own[name] = places
                break
    even = gradients(torch.ones_like(r)) if own else {}
    most = max((plain[name].numel() for name in own), default=0)
    exact = max(ADDED, 8 * torch.finfo(y.dtype).eps)
    biases = []
    for name in own:
        total = even[name]
        # a bias added everywhere weighs all inputs alike; one added to some inputs has a gradient that counts
        # them
        is_added_to_all = first is not None and _close(plain[name], float(r.double().mean()) * total, exact)
        counted = total.numel() < most and _close(total, total.round(), exact) and bool((total >= 0).all())
        if is_added_to_all or counted:
            biases.append(name)
    return OwnParameters(own, tuple(biases))


def _layouts(gradient: Tensor, c: Tensor) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """Possible unit layouts of a parameter: its unit axes, and the units' weights along them.

    The parameter's axes may be those of the units, or be flattened to one, as those of several heads are.
    """
    for several in range(1, gradient.ndim + 1):
        for axes in combinations(range(gradient.ndim), several):
            sizes = tuple(gradient.shape[axis] for axis in axes)
            if sizes == tuple(c.shape) or (1 in (c.ndim, several) and math.prod(sizes) == c.numel()):
                shape = [size if axis in axes else 1 for axis, size in enumerate(gradient.shape)]
                yield axes, c.reshape(shape)


def _close(a: Tensor, b: Tensor, most: float = CLOSE) -> bool:
    size = float(b.abs().max()) if b.numel() else 0.0
    return 0 < size < math.inf and bool((a - b).abs().max() <= most * size)
