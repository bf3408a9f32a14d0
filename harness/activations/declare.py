"""declare_activation: declare where a custom activation's gate is open, to count it like torch's."""

from __future__ import annotations

import functools
import inspect
import math
import warnings
import weakref
from collections.abc import Callable
from numbers import Real
from typing import Any, TypeVar, overload

import torch
from torch import Tensor, nn
from torch.overrides import get_testing_overrides, handle_torch_function, has_torch_function

from harness.activations.declared import CLASSES, FUNCTIONS, Declaration
from harness.activations.lookup import TABLE
from harness.activations.registry import RECORDS

Target = TypeVar("Target")
Threshold = float | Tensor | Callable[..., Any]
ANYTHING = (None,)  # checks only whether a function mode is active

_WRAPPERS: weakref.WeakKeyDictionary[Any, Callable[..., Any]] = weakref.WeakKeyDictionary()
_FORWARDS: weakref.WeakKeyDictionary[type, Any] = weakref.WeakKeyDictionary()  # before their declaration


@overload
def declare_activation(
    target: Target, *, threshold: Threshold | None = None, open: Callable[..., Any] | None = None
) -> Target: ...


@overload
def declare_activation(
    *, threshold: Threshold | None = None, open: Callable[..., Any] | None = None
) -> Callable[[Target], Target]: ...


def declare_activation(
    target: Any = None, *, threshold: Threshold | None = None, open: Callable[..., Any] | None = None
) -> Any:
    """Declare a custom activation: recorders and scans then count it like one of torch's.

    Its pre-activation z is the first floating-point tensor among its arguments. Declare it before entering a
    Recorder. Models are not changed; a new declaration replaces an earlier one.

    Args:
        target: a subclass of `nn.Module`, which includes subclasses that inherit its forward; a subclass of
            `torch.autograd.Function`, whose `apply` is then observed; an operator of `torch.library` or a
            function of torch; or any other Python function. Only the last must be replaced by the result,
            since its calls cannot be observed: `lib.act = harness.declare_activation(lib.act, threshold=0)`.
            Without a target, the result is a decorator.
        threshold: a gate is open where z is above it: a number, a tensor with one value per unit, or a
            function that returns one of these and is evaluated at every call. For a module class the function
            receives the module, otherwise the arguments of the call.
        open: function that computes which gates are open: z → torch.bool tensor of the same shape. It
            receives a copy of z. If it has a second parameter without default, it is called as open(z,
            module), or with all arguments of a function. Give either this or a threshold.

    Returns:
        The target, or the function to use instead.

    Raises:
        ValueError: neither or both of `threshold` and `open` are given; a threshold is NaN or empty.
        TypeError: the target, threshold or `open` has the wrong type.

    Example:
        >>> class Shifted(nn.Module):
        ...     def forward(self, z):
        ...         return torch.where(z > 0.5, z, 0.0)
        >>> _ = declare_activation(Shifted, threshold=0.5)
        >>> import harness
        >>> model = nn.Sequential(nn.Linear(1, 2), Shifted())
        >>> _ = nn.init.constant_(model[0].weight, 1), nn.init.zeros_(model[0].bias)
        >>> harness.scan(model, torch.tensor([[0.2], [0.7], [0.9]])).units.active.tolist()
        [2, 2]
        >>> undeclare_activation(Shifted)
    """
    _check(threshold, open)
    if target is None:
        return lambda declared: declare_activation(declared, threshold=threshold, open=open)  # type: ignore[call-overload]

    def declaration(name: str, holder: Any) -> Declaration:
        return Declaration(name, threshold, open, open is not None and _takes_more(open), holder)

    function = _of_apply(target)
    if isinstance(function, type):
        if issubclass(function, nn.Module):
            CLASSES[function] = declaration(_name(function), None)
            return target
        if issubclass(function, torch.autograd.Function):
            announced = _announced_forward(function)
            FUNCTIONS[id(announced)] = declaration(_name(function), announced)
            return target
    known = _seen_by_modes(function)
    for one in known:
        FUNCTIONS[id(one)] = declaration(_name(one), one)
    if known:
        return target
    if isinstance(function, type | nn.Module) or not callable(function):
        kind = function.__name__ if isinstance(function, type) else type(function).__name__
        hint = ": declare its class" if isinstance(function, nn.Module) else ""
        raise TypeError(
            "target: expected a subclass of nn.Module or torch.autograd.Function, an operator or a function,"
            f" but got {kind}{hint}"
        )
    wrapper = function if function in _WRAPPERS else _wrapper(function)
    FUNCTIONS[id(_WRAPPERS[wrapper])] = declaration(_name(function), None)
    return wrapper


def undeclare_activation(target: Any) -> None:
    """Remove a declaration; a function that replaced another keeps working.

    Args:
        target: the declared target, or what `declare_activation` returned.

    Raises:
        ValueError: the target is not declared.

    Example:
        >>> act = declare_activation(lambda z: z * (z > 1), threshold=1)
        >>> undeclare_activation(act)
    """
    function = _of_apply(target)
    if isinstance(function, type):
        if CLASSES.pop(function, None) is not None:
            return
        if function in _FORWARDS:
            announced, before = _FORWARDS.pop(function)
            del FUNCTIONS[id(announced)]
            del function.forward  # type: ignore[attr-defined]
            if before is not None:
                function.forward = before  # type: ignore[attr-defined]
            return
    keys = [id(one) for one in _seen_by_modes(function)]
    if not keys and callable(function) and not isinstance(function, type) and function in _WRAPPERS:
        keys = [id(_WRAPPERS[function])]
    if not [FUNCTIONS.pop(key) for key in keys if key in FUNCTIONS]:
        raise ValueError(f"target: expected a declared activation, but got {_name(function)}")


def _check(threshold: Any, is_open: Any) -> None:
    if (threshold is None) is (is_open is None):
        both = "neither" if threshold is None else "both"
        raise ValueError(f"declare_activation: expected either threshold= or open=, but got {both}")
    if is_open is not None:
        if not callable(is_open):
            raise TypeError(f"open: expected a function of z, but got {type(is_open).__name__}")
        return
    if isinstance(threshold, Tensor):
        if threshold.dtype == torch.bool or threshold.is_complex():
            raise TypeError(f"threshold: expected a tensor of numbers, but got {threshold.dtype}")
        if not threshold.numel():
            raise ValueError("threshold: expected one value for each unit, but got an empty tensor")
        if threshold.device.type != "meta" and bool(threshold.isnan().any()):
            raise ValueError("threshold: expected numbers, but got nan among them")
    elif isinstance(threshold, Real) and not isinstance(threshold, bool):
        if math.isnan(threshold):
            raise ValueError("threshold: expected a number, but got nan")
    elif not callable(threshold):
        kind = type(threshold).__name__
        raise TypeError(f"threshold: expected a number, a tensor or a function, but got {kind}")


def _takes_more(is_open: Callable[..., Any]) -> bool:
    """Whether a function has several required positional parameters."""
    try:
        parameters = inspect.signature(is_open).parameters.values()
    except (TypeError, ValueError):  # a builtin
        return False
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p for p in parameters if p.default is p.empty and p.kind in by_place]
    return len(needed) > 1


def _of_apply(target: Any) -> Any:
    """MyFunction for `MyFunction.apply`; any other target unchanged."""
    owner = getattr(target, "__self__", None)
    is_function = isinstance(owner, type) and issubclass(owner, torch.autograd.Function)
    return owner if is_function and getattr(target, "__name__", "") == "apply" else target


def _name(target: Any) -> str:
    """The name in sites, qualified if one of torch's own activations has the same name."""
    named = target.func if isinstance(target, functools.partial) else target
    full = str(named) if isinstance(named, torch._ops.OpOverload | torch._ops.OpOverloadPacket) else ""
    space, _, name = full.removesuffix(".default").rpartition(".")
    name = name or getattr(named, "__name__", type(named).__name__).strip("<>")
    space = space or str(getattr(named, "__module__", ""))
    return f"{space}.{name}" if name in RECORDS else name


def _seen_by_modes(function: Any) -> list[Any]:
    """The forms in which function modes see it; empty if it is not a torch function."""
    operator = getattr(function, "_opoverload", function)  # for torch.library.custom_op
    if isinstance(operator, torch._ops.OpOverload):
        return [operator, operator.overloadpacket]
    if isinstance(operator, torch._ops.OpOverloadPacket):
        return [operator, *(getattr(operator, name) for name in operator.overloads())]
    try:
        return [function] if function in TABLE or function in get_testing_overrides() else []
    except TypeError:  # not hashable
        return []


def _announced(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function visible to function modes, like torch's own functions."""

    @functools.wraps(function)
    def announced(*args: Any, **kwargs: Any) -> Any:
        if has_torch_function(ANYTHING):
            return handle_torch_function(announced, (), *args, **kwargs)
        return function(*args, **kwargs)

    return announced


def _announced_forward(cls: Any) -> Callable[..., Any]:
    """Make a class's forward visible: modes do not see `apply`, which calls `forward` with its tensors."""
    if cls not in _FORWARDS:
        announced = _announced(cls.forward)
        _FORWARDS[cls] = announced, vars(cls).get("forward")
        cls.forward = staticmethod(announced)
    return _FORWARDS[cls][0]


def _wrapper(function: Callable[..., Any]) -> Callable[..., Any]:
    announced, used = _announced(function), list[None]()

    @functools.wraps(function, updated=())
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if not used:
            used.append(None)
        return announced(*args, **kwargs)

    _WRAPPERS[wrapper] = announced
    weakref.finalize(wrapper, _dropped, id(announced), _name(function), used).atexit = False
    return wrapper


def _dropped(key: int, name: str, used: list[None]) -> None:
    if FUNCTIONS.pop(key, None) is not None and not used:
        warnings.warn(
            f"{name} was declared, but what declare_activation returned was thrown away and never called:"
            f" assign it, as in lib.{name} = harness.declare_activation(lib.{name}, …)",
            stacklevel=3,
        )
