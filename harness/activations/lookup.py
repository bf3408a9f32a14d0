"""Resolves the names in the records: which torch module or function is which activation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pkgutil import resolve_name
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.activations.declared import DeclaredCall, declared_call, declared_class
from harness.activations.gates import Gate
from harness.activations.record import Parameters
from harness.activations.registry import RECORDS
from harness.activations.stored import is_computed

_NATIVE = vars(torch._C).get("_nn") or getattr(torch._C, "_nn", None)  # elu_ and others, in place


def _resolved(name: str, package: str) -> Any:
    """The object with a name; None if this version of torch does not have it."""
    try:
        return resolve_name(name if "." in name else f"{package}.{name}")
    except (ImportError, AttributeError):
        return None


def _functions() -> dict[Any, tuple[str, Sequence[str]]]:
    """Every spelling → canonical name, names of the positional arguments after the input."""
    found: dict[Any, tuple[str, Sequence[str]]] = {}
    for record in RECORDS.values():
        native = record.name, tuple(record.parameters) or record.positional or ()
        python = native if record.positional is None else (record.name, record.positional)
        for spelling in record.spellings or (record.name,):
            for name in (spelling, f"{spelling}_"):
                functions = [getattr(owner, name, None) for owner in (torch, F, Tensor, torch.special)]
                found |= {function: python for function in functions if callable(function)}
                packet = getattr(torch.ops.aten, name, None)  # as exported programs call them
                overloads = [getattr(packet, overload) for overload in packet.overloads()] if packet else []
                functions = [getattr(_NATIVE, name, None), packet, *overloads]
                found |= {function: native for function in functions if callable(function)}
    return found


#: Module class -> (canonical name, gate of a module of that class at eps).
MODULES: dict[type[nn.Module], tuple[str, Callable[..., Gate]]] = {
    cls: (record.name, record.gate_of_module)
    for record in RECORDS.values()
    for name in record.modules
    if (cls := _resolved(name, "torch.nn")) is not None
}
_FUNCTIONS = _functions()
#: Function, method or overload -> canonical name.
TABLE = {function: name for function, (name, _) in _FUNCTIONS.items()}


def lookup(module: nn.Module) -> tuple[str, Callable[..., Gate]] | None:
    """Canonical name and gate of an activation module, or None for any other module.

    A subclass that overrides forward is not its parent's activation unless it sets `gate_of = Parent`;
    functions called inside it are observed instead. The same holds for a module whose slope is computed, for
    example by a parametrisation: the call shows its value, without running anything to get it.

    Example:
        >>> name, gate = lookup(nn.ReLU6())
        >>> name, gate(nn.ReLU6(), 1e-6).high
        ('relu6', 6.0)
    """
    own = declared_class(type(module))
    if own is not None:
        return own.name, own.gate_of_module
    known = known_as(type(module))
    if known is None:
        return None
    name, gate_of = MODULES[known]
    computed = any(is_computed(module, parameter) for parameter in RECORDS[name].parameters)
    return None if computed and type(module).forward is known.forward else (name, gate_of)


def open_of(module: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """The function z → which gates are open of a module declared with `open=`; None for any other."""
    own = declared_class(type(module))
    return None if own is None or own.is_open is None else partial(own.mask_of_module, module)


def known_as(cls: type[nn.Module]) -> type[nn.Module] | None:
    """The class among `MODULES` whose forward a class inherits, or that it names as `gate_of`."""
    for known in cls.__mro__:
        if known in MODULES:
            return known if cls.forward is known.forward or vars(cls).get("gate_of") is known else None
    return None


def bound(
    function: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    is_data: Callable[[Tensor], bool],
    is_zero: Callable[[Tensor], bool],
) -> tuple[str, Tensor, Parameters] | None:
    """Canonical name, pre-activation and bound arguments, if the call is an activation; else None.

    Args:
        function: the function as a torch function mode sees it.
        args: its positional arguments.
        kwargs: its keyword arguments.
        is_data: whether a tensor comes from the model's inputs or layers (unlike a zero to compare with).
        is_zero: whether all values of any other tensor are 0.
    """
    own = declared_call(function, args, kwargs)
    if own is not None:
        return own.declaration.name, own.z, own
    found = _FUNCTIONS.get(function)
    if found is None:
        return None
    name, positional = found
    z = args[0] if args else kwargs.get("input", kwargs.get("self"))
    arguments = dict(zip(positional, args[1:], strict=False)) | dict(kwargs)
    if name == "maximum":
        pair = [z, arguments.get("other")]
        zeros = [isinstance(t, Tensor) and not is_data(t) and is_zero(t) for t in pair]
        if sum(zeros) != 1:
            return None
        z = pair[1 - zeros.index(True)]
    if not isinstance(z, Tensor) or not (z.is_floating_point() or z.is_quantized):
        return None
    low = arguments.get("min")
    if isinstance(low, Tensor) and not is_data(low) and is_zero(low):
        arguments["min"] = 0.0
    return name, z, arguments


def gate(name: str, arguments: Parameters, eps: float) -> Gate | None:
    """The gate of a call; None if its arguments make it no activation (clamp at other values than 0)."""
    if isinstance(arguments, DeclaredCall):
        return arguments.gate()
    return RECORDS[name].gate(arguments, eps)


def is_activation(name: str, arguments: Parameters, eps: float) -> bool:
    """Whether a call with these arguments is an activation, without evaluating a declared gate."""
    return isinstance(arguments, DeclaredCall) or gate(name, arguments, eps) is not None


class Asked(NamedTuple):
    """How to get the gate of a call.

    Attributes:
        open_of: z → which gates are open; None if `gate` determines it.
        lasts: whether other calls have the same gate.
    """

    open_of: Callable[[Tensor], Tensor] | None = None
    lasts: bool = True


def asked(arguments: Parameters) -> Asked:
    """How to get the gate of a call with these arguments."""
    if not isinstance(arguments, DeclaredCall):
        return Asked()
    own = arguments.declaration
    return Asked(None if own.is_open is None else arguments.mask, lasts=not own.asks)


def compute(name: str, arguments: Parameters, z: Tensor) -> Any:
    """The activation's output for z, computed separately; None if that is not possible."""
    if isinstance(arguments, DeclaredCall):
        return arguments.compute(z)
    record = RECORDS[name]
    function = _resolved(record.computed_by or name, "torch.nn.functional")
    if function is None:
        return None
    return function(z.clone(), **{k: arguments[k] for k in record.parameters if k in arguments})
