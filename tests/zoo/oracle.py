"""Which units fired, found out below autograd: slow, and independent of the package under test.

A dispatch mode sees every ATen operation of a forward pass. Where one is an activation, the oracle copies
its input. Origins follow the memory: whatever a parameter was multiplied into is that layer's output, and
every view and in-place result shares its storage. The axis of the units is not inferred; the zoo states it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

EPS = 1e-6  # a gate other than ReLU's is open where |f'(z)| exceeds this
AxisRule = Callable[[str, Tensor], int | tuple[int, ...]]

RENAMED = {"log_sigmoid_forward": "logsigmoid", "_prelu_kernel": "prelu", "rrelu_with_noise": "rrelu"}
SIGMOIDS = {"sigmoid", "hardsigmoid", "tanh", "log_sigmoid_forward"}
RECTIFIERS = {"relu", "leaky_relu", "_prelu_kernel", "rrelu_with_noise", "softshrink", "hardshrink"}
PLAIN = SIGMOIDS | RECTIFIERS | {"celu", "silu", "mish", "gelu", "hardswish", "softplus"}
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "linear", "_grouped_mm", "embedding"}
CONVOLUTIONS = {"convolution", "_convolution", "mkldnn_convolution", "conv_depthwise3d"}
BATCH_NORMS = {"native_batch_norm", "_native_batch_norm_legit", "_batch_norm_with_update"}
LAYERS = PRODUCTS | CONVOLUTIONS | BATCH_NORMS | {"native_layer_norm", "native_group_norm", "_fused_rms_norm"}
# Through these an output of a layer stays one, so that a clamp of it is an activation rather than arithmetic.
KEEPING = {"add", "native_dropout", "clone", "_to_copy", "cat", "copy", "contiguous"}


class Origin(NamedTuple):
    """Where memory comes from: parameters, whether from inputs too, whether it is a layer's own output."""

    parameters: frozenset[str] = frozenset()
    fed: bool = True
    output: bool = False


class Key(NamedTuple):
    """Calls that agree in all of this concern the same units."""

    caller: str
    kind: str
    producers: frozenset[str]
    width: int


@dataclass
class Sums:
    """What calls add up to; one entry per unit."""

    n: int
    active: Tensor
    doubtful: Tensor  # inputs so near to where the gate switches that float32 may decide either way
    peak: Tensor
    calls: int = 1

    def add(self, other: Sums) -> None:
        self.n += other.n
        self.calls += other.calls
        self.active += other.active
        self.doubtful += other.doubtful
        self.peak = torch.maximum(self.peak, other.peak)


@dataclass
class Call:
    caller: str
    kind: str
    z: Tensor
    function: Callable[[Tensor], Tensor]
    producers: frozenset[str]


@dataclass
class Truth:
    """What all forwards did, and which modules ran whose activations are, or may be, inside one kernel."""

    sites: dict[Key, Sums] = field(default_factory=dict)
    fused: set[str] = field(default_factory=set)  # recurrent layers
    fast: set[str] = field(default_factory=set)  # transformer encoder layers in evaluation mode
    calls: int = 0


def kind_of(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """The activation's name, from an ATen operation's name (in-place or not) and arguments."""
    if name in PLAIN:
        return RENAMED.get(name, name)
    bounds = [*args[1:3], None, None]
    low = kwargs.get("min", kwargs.get("min_val", bounds[0]))
    high = kwargs.get("max", kwargs.get("max_val", bounds[1]))
    if name == "hardtanh":
        return "relu6" if (low, high) == (0, 6) else "hardtanh"
    if name in ("clamp", "clamp_min"):
        return {None: "relu", 6: "relu6"}.get(high) if low == 0 else None
    if name == "threshold":
        return "relu" if (low, high) == (0, 0) else "threshold"
    if name == "elu":
        return "selu" if len(args) > 2 and args[2] != 1 else "elu"
    return None


def gate(kind: str, z: Tensor, function: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Where the gate is open, and where that hangs on the last bits; both of z's shape."""
    if kind == "relu":
        return z > 0, torch.zeros_like(z, dtype=torch.bool)
    if kind == "relu6":
        return (z > 0) & (z < 6), torch.zeros_like(z, dtype=torch.bool)
    with torch.enable_grad():
        wide = z.double().requires_grad_()
        (slope,) = torch.autograd.grad(function(wide).sum(), wide)
    steep = slope.abs()
    # A float32 slope is off by up to about 1e-7; about a zero crossing of f' it may be on either side of EPS.
    return steep > EPS, (steep > EPS / 2) & (steep < EPS * 2) | (steep < EPS * 2) & (z.abs() < 3)


def reduced(call: Call, axis: AxisRule) -> Sums:
    """Sums over everything but the unit axis; several axes if a view has split it (heads × d)."""
    which = axis(call.caller, call.z)
    units = sorted(a % call.z.ndim for a in ((which,) if isinstance(which, int) else which))
    rest = [a for a in range(call.z.ndim) if a not in units]
    width = math.prod(call.z.shape[a] for a in units)
    opened, doubtful = gate(call.kind, call.z, call.function)
    rows, doubt, values = (t.permute(*rest, *units).reshape(-1, width) for t in (opened, doubtful, call.z))
    finite = values.where(values.isfinite(), -torch.inf)
    return Sums(len(rows), rows.sum(0), doubt.sum(0), finite.amax(0))


class Oracle(TorchDispatchMode):
    """Observes the forwards of `model` that run inside `with oracle.forward():`.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    >>> oracle = Oracle(net, axis=lambda caller, z: -1)
    >>> with oracle.forward():
    ...     _ = net(torch.ones(5, 2))
    >>> [(key.caller, key.kind, key.width, sums.n) for key, sums in oracle.truth.sites.items()]
    [('1', 'relu', 3, 5)]
    """

    def __init__(self, model: nn.Module, axis: AxisRule, slices: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.model, self.axis, self.slices, self.truth = model, axis, slices, Truth()
        self._stack: list[tuple[str, nn.Module]] = []
        self._calls: list[Call] = []
        self._origins: dict[int, Origin] = {}

    @contextmanager
    def forward(self) -> Iterator[None]:
        """Observes what runs inside; leave it before the backward pass."""
        for name, parameter in self.model.named_parameters():
            self._origins[parameter.untyped_storage().data_ptr()] = Origin(frozenset({name}), fed=False)
        handles: list[Any] = []
        for name, module in self.model.named_modules():
            handles.append(module.register_forward_pre_hook(partial(self._enter, name)))
            handles.append(module.register_forward_hook(self._leave, always_call=True))
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with self:
                yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
            for handle in handles:
                handle.remove()
        self._count()

    def _enter(self, name: str, module: nn.Module, args: Any) -> None:
        self._stack.append((name, module))
        if isinstance(module, nn.RNNBase | nn.RNNCellBase):
            self.truth.fused.add(name)
        if isinstance(module, nn.TransformerEncoderLayer) and not module.training:
            self.truth.fast.add(name)

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._stack.pop()

    def _count(self) -> None:
        order: Counter[str] = Counter()
        for call in self._calls:
            if not call.z.numel():
                continue  # an expert without tokens, a detector without boxes
            sums = reduced(call, self.axis)
            self.truth.calls += 1
            producers = call.producers
            if any(fnmatchcase(call.caller, pattern) for pattern in self.slices):
                producers |= {f"slice {order[call.caller]}"}
                order[call.caller] += 1
            key = Key(call.caller, call.kind, producers, len(sums.active))
            if key in self.truth.sites:
                self.truth.sites[key].add(sums)
            else:
                self.truth.sites[key] = sums
        self._calls.clear()
        self._origins.clear()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        base = name if name.startswith("_") else name.rstrip("_")
        inputs = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        known = [self._origins.get(t.untyped_storage().data_ptr(), Origin()) for t in inputs]
        if self._stack and (kind := kind_of(base, args, kwargs)):
            self._see(kind, base, args, kwargs, known[0])
        result = func(*args, **kwargs)
        origin = self._follow(base, known)
        before = {t.untyped_storage().data_ptr() for t in inputs}
        for output in tree_leaves(result):
            if isinstance(output, Tensor) and output.numel():
                place = output.untyped_storage().data_ptr()
                in_place = name.endswith("_") and not name.startswith("_")
                if place not in before or (in_place and place == inputs[0].untyped_storage().data_ptr()):
                    self._origins[place] = origin
        return result

    def _see(self, kind: str, base: str, args: Any, kwargs: Any, origin: Origin) -> None:
        name, module = self._stack[-1]
        if isinstance(module, nn.RNNBase | nn.RNNCellBase) or (
            base.startswith("clamp") and not origin.output
        ):
            return
        operation = getattr(torch.ops.aten, base)
        rest = [a.detach().double().clone() if isinstance(a, Tensor) else a for a in args[1:]]

        def function(z: Tensor) -> Tensor:
            result = operation(z, *rest, **{k: v for k, v in kwargs.items() if k != "out"})
            return result[0] if isinstance(result, tuple) else result

        self._calls.append(Call(name, kind, args[0].detach().clone(), function, origin.parameters))

    @staticmethod
    def _follow(base: str, known: list[Origin]) -> Origin:
        own = frozenset[str]().union(*(o.parameters for o in known if not o.fed))
        if base in LAYERS and own and any(o.fed for o in known):
            return Origin(own, output=True)
        everything = frozenset[str]().union(*(o.parameters for o in known))
        fed = not known or any(o.fed for o in known)
        output = (
            base in KEEPING and any(o.output for o in known) and all(o.output or not o.fed for o in known)
        )
        return Origin(everything, fed, output)
