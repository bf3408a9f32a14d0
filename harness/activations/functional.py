"""Activations called as functions and tensor methods: `F.relu`, `x.clamp_(min=0)`, `torch.maximum(x, 0)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.activations import table as act
from harness.activations.table import Gate

Arguments = Mapping[str, Any]


def _number(arguments: Arguments, name: str, default: float) -> float:
    value = arguments.get(name, default)
    return default if value is None else float(value)


def _clamp(a: Arguments, eps: float) -> Gate | None:
    low, high = a.get("min"), a.get("max")
    if isinstance(low, Tensor) or isinstance(high, Tensor) or low is None or low != 0:
        return None
    return Gate(low=0.0, high=act.INF if high is None else float(high))


def _rrelu(a: Arguments, eps: float) -> Gate:
    slopes = abs(_number(a, "lower", 1 / 8)), abs(_number(a, "upper", 1 / 3))
    return act.zero_side(max(slopes), eps)


#: canonical name -> (parameter names after the input, gate from the bound arguments)
FUNCTIONS: dict[str, tuple[Sequence[str], Callable[[Arguments, float], Gate | None]]] = {
    "relu": ((), lambda a, eps: act.zero_side(0.0, eps)),
    "leaky_relu": (
        ("negative_slope",),
        lambda a, eps: act.zero_side(_number(a, "negative_slope", 0.01), eps),
    ),
    "rrelu": (("lower", "upper"), _rrelu),
    "prelu": (("weight",), lambda a, eps: act.prelu(a["weight"], eps)),
    "elu": (("alpha",), lambda a, eps: act.exponential(_number(a, "alpha", 1.0), 1.0, eps)),
    "selu": ((), lambda a, eps: act.exponential(act.SELU_SCALE * act.SELU_ALPHA, 1.0, eps)),
    "celu": (
        ("alpha",),
        lambda a, eps: act.exponential(_number(a, "alpha", 1.0), 1 / _number(a, "alpha", 1.0), eps),
    ),
    "silu": ((), lambda a, eps: act.smooth_dip(act.silu_slope, eps)),
    "gelu": ((), lambda a, eps: act.gelu(a.get("approximate", "none"), eps)),
    "mish": ((), lambda a, eps: act.smooth_dip(act.mish_slope, eps)),
    "softplus": (("beta",), lambda a, eps: act.softplus(_number(a, "beta", 1.0), eps)),
    "relu6": ((), lambda a, eps: Gate(low=0.0, high=6.0)),
    "hardtanh": (
        ("min_val", "max_val"),
        lambda a, eps: Gate(low=_number(a, "min_val", -1.0), high=_number(a, "max_val", 1.0)),
    ),
    "hardswish": ((), lambda a, eps: act.hardswish(eps)),
    "hardsigmoid": ((), lambda a, eps: act.bump(3.0)),
    "hardshrink": (("lambd",), lambda a, eps: act.around(0.0, _number(a, "lambd", 0.5))),
    "softshrink": (("lambd",), lambda a, eps: act.around(0.0, _number(a, "lambd", 0.5))),
    "threshold": (("threshold",), lambda a, eps: Gate(low=_number(a, "threshold", 0.0))),
    "sigmoid": ((), lambda a, eps: act.bump(act.sigmoid_width(eps))),
    "logsigmoid": ((), lambda a, eps: act.MODULES[torch.nn.LogSigmoid][1](None, eps)),
    "tanh": ((), lambda a, eps: act.bump(act.tanh_width(eps))),
    "softsign": ((), lambda a, eps: act.MODULES[torch.nn.Softsign][1](None, eps)),
    "tanhshrink": ((), lambda a, eps: act.MODULES[torch.nn.Tanhshrink][1](None, eps)),
    "clamp": (("min", "max"), _clamp),
    "clamp_min": (("min",), _clamp),
    "maximum": (("other",), lambda a, eps: Gate(low=0.0)),
}
ALIASES = {"clip": "clamp", "expit": "sigmoid", "max": "maximum", "fmax": "maximum"}
CANONICAL_SHOWN = {"clamp_min": "clamp"}


def _table() -> dict[Any, str]:
    """Every spelling of every function → the key into FUNCTIONS."""
    found: dict[Any, str] = {}
    spellings = [*((name, name) for name in FUNCTIONS), *ALIASES.items()]
    for spelled, name in spellings:
        for owner in (torch, F, Tensor, torch.special, vars(torch._C)["_nn"]):
            for suffix in ("", "_"):
                function = getattr(owner, spelled + suffix, None)
                if callable(function):
                    found[function] = name
        for suffix in ("", "_"):  # as exported programs call them
            packet = getattr(torch.ops.aten, spelled + suffix, None)
            if packet is not None:
                found |= dict.fromkeys((packet, *(getattr(packet, o) for o in packet.overloads())), name)
    return found


TABLE = _table()


def bound(
    function: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    is_data: Callable[[Tensor], bool],
    is_zero: Callable[[Tensor], bool],
) -> tuple[str, Tensor, Arguments] | None:
    """Key, pre-activation and bound arguments, if the call is an activation; else None.

    Args:
        function: as a torch function mode sees it.
        args: its positional arguments.
        kwargs: its keyword arguments.
        is_data: whether a tensor comes from the model's inputs or layers (a zero to compare with does not).
        is_zero: whether all values of another tensor are 0.
    """
    name = TABLE.get(function)
    if name is None:
        return None
    z = args[0] if args else kwargs.get("input", kwargs.get("self"))
    arguments = dict(zip(FUNCTIONS[name][0], args[1:], strict=False)) | dict(kwargs)
    if name == "maximum":
        pair = [z, arguments.get("other")]
        zeros = [isinstance(t, Tensor) and not is_data(t) and is_zero(t) for t in pair]
        if sum(zeros) != 1:
            return None
        z = pair[1 - zeros.index(True)]
    if not isinstance(z, Tensor) or not z.is_floating_point():
        return None
    low = arguments.get("min")
    if isinstance(low, Tensor) and not is_data(low) and is_zero(low):
        arguments = {**arguments, "min": 0.0}
    return name, z, arguments


def gate(name: str, arguments: Arguments, eps: float) -> Gate | None:
    """The gate of a call, or None if these arguments make it no activation (clamp to other than 0)."""
    return FUNCTIONS[name][1](arguments, eps)


def shown(name: str) -> str:
    """The canonical name in site names."""
    return CANONICAL_SHOWN.get(name, name)


def compute(name: str, arguments: Arguments, z: Tensor) -> Any:
    """The activation's output for z, computed apart; None where it is not known how."""
    function = {"clamp": torch.clamp, "clamp_min": torch.clamp_min}.get(name) or getattr(F, name, None)
    if function is None:
        return torch.relu(z) if name == "maximum" else None
    return function(z.clone(), **{k: v for k, v in arguments.items() if k not in ("inplace", "out")})
