"""Custom activations declared with `harness.declare_activation`, and where their gates are open."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from harness.activations.gates import INF, Gate

CLOSED = Gate(low=INF)
#: Hides calls from function modes, which would otherwise see the computations of a user-defined gate.
_UNSEEN: Callable[[], Any] = getattr(torch._C, "DisableTorchFunction", nullcontext)


class GateError(Exception):
    """A user-defined gate raised, or its result does not fit the pre-activation."""


@dataclass(frozen=True, eq=False)
class Declaration:
    """A declared activation.

    Attributes:
        name: name in site names.
        threshold: gates are open above it; a number, a tensor with one value per unit, or a function that
            returns one of these.
        is_open: z → which gates are open; None if there is a threshold.
        takes_all: whether `is_open` also receives the module, or all arguments of the call.
        target: the declared object, to keep it alive; None if its owner must do so.
    """

    name: str
    threshold: Any = None
    is_open: Callable[..., Any] | None = None
    takes_all: bool = False
    target: Any = None

    @property
    def asks(self) -> bool:
        """Whether the gate depends on the arguments of a call."""
        return self.is_open is not None or callable(self.threshold)

    def gate(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Gate:
        """The current gate; closed if `is_open` computes it instead.

        Args:
            args: arguments for a threshold function.
            kwargs: its keyword arguments.

        Raises:
            GateError: that function raises or returns something else.
        """
        if self.is_open is not None:
            return CLOSED
        if isinstance(self.threshold, Real):
            return Gate(low=float(self.threshold))
        value = self.threshold
        if not isinstance(value, Tensor):
            with _apart("threshold"):
                value = value(*args, **kwargs)
        return Gate(low=_lows(value))

    def mask(self, z: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
        """The result of `is_open`, which cannot modify z.

        Raises:
            GateError: it raises, or does not return a bool tensor of the shape of z.
        """
        assert self.is_open is not None
        device = [z.get_device()] if z.is_cuda else []
        with _apart("open"), torch.random.fork_rng(device):
            mask = self.is_open(*args, **kwargs)
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
            raise GateError(f"open: expected a tensor of torch.bool, but it returned {kind}")
        if mask.shape != z.shape:
            raise GateError(f"open: expected the shape of z {(*z.shape,)}, but it returned {(*mask.shape,)}")
        return mask

    # --- of modules ---------------------------------------------------------------------------------

    def gate_of_module(self, module: nn.Module, eps: float) -> Gate:
        """The current gate of a module; eps is ignored."""
        return self.gate((module,), {})

    def mask_of_module(self, module: nn.Module, z: Tensor) -> Tensor:
        """Which gates of a module are open on z."""
        given = z.detach().clone()
        return self.mask(z, (given, module) if self.takes_all else (given,), {})


class DeclaredCall(Mapping[str, Any]):
    """A call of a declared function, used in place of an activation's bound arguments; an empty mapping.

    Args:
        declaration: declaration of the function.
        function: the function as a function mode sees it.
        z: the pre-activation.
        args: arguments of the call.
        kwargs: keyword arguments of the call.
    """

    def __init__(
        self,
        declaration: Declaration,
        function: Any,
        z: Tensor,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> None:
        self.declaration, self._function, self.z = declaration, function, z
        self._args, self._kwargs = args, kwargs

    def gate(self) -> Gate:
        """The gate of this call."""
        return self.declaration.gate(*self._given(self.z.detach(), context=False))

    def mask(self, z: Tensor) -> Tensor:
        """Which gates of this call are open."""
        given = z.detach().clone()
        if not self.declaration.takes_all:
            return self.declaration.mask(z, (given,), {})
        return self.declaration.mask(z, *self._given(given, context=False))

    def compute(self, z: Tensor) -> Any:
        """The function's output for z."""
        args, kwargs = self._given(z, context=True)
        return self._function(*args, **kwargs)

    def _given(self, z: Tensor, *, context: bool) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """The call's arguments with z substituted, and without the context of an autograd.Function."""
        args = self._args
        if not context and args and isinstance(args[0], torch.autograd.function.FunctionCtx):
            args = args[1:]
        kwargs = {name: z if value is self.z else value for name, value in self._kwargs.items()}
        return [z if value is self.z else value for value in args], kwargs

    def __getitem__(self, name: str) -> Any:
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


CLASSES: weakref.WeakKeyDictionary[type[nn.Module], Declaration] = weakref.WeakKeyDictionary()
FUNCTIONS: dict[int, Declaration] = {}  # by id: functions as keys would be kept alive


def declared_names() -> set[str]:
    """Names of the currently declared activations."""
    return {declaration.name for declaration in (*CLASSES.values(), *FUNCTIONS.values())}


def declared_class(cls: type[nn.Module]) -> Declaration | None:
    """The declaration of a class, or of the parent whose forward it inherits."""
    if not CLASSES:
        return None
    for known in cls.__mro__:
        if known in CLASSES:
            return CLASSES[known] if cls.forward is known.forward else None
    return None


def parts_of_declared(modules: Iterable[nn.Module]) -> set[nn.Module]:
    """The modules inside declared ones: their computations belong to the declared module."""
    if not CLASSES:
        return set()
    owners = [module for module in modules if declared_class(type(module)) is not None]
    return {part for owner in owners for part in owner.modules() if part is not owner}


def declared_call(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> DeclaredCall | None:
    """A call of a declared function; None for other functions and for calls without a float tensor."""
    declaration = FUNCTIONS.get(id(function))
    if declaration is None:
        return None
    z = pre_activation(args, kwargs)
    return None if z is None else DeclaredCall(declaration, function, z, args, kwargs)


def pre_activation(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """The first floating-point tensor among the arguments.

    >>> pre_activation((2, torch.ones(1), torch.zeros(1)), {})
    tensor([1.])
    """
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor) and value.is_floating_point():
            return value
    return None


@contextmanager
def _apart(argument: str) -> Iterator[None]:
    """Context manager for user-defined computations: hidden from the model; errors become GateError."""
    try:
        with torch.no_grad(), _UNSEEN():
            yield
    except Exception as error:
        raise GateError(f"{argument}: it raised {type(error).__name__}: {error}") from error


def _lows(value: Any) -> Tensor:
    """Thresholds in the form of a gate: (units,) or (1,)."""
    if isinstance(value, Tensor) and not value.is_complex() and value.dtype != torch.bool:
        plain = value.detach().reshape(-1)
        return plain if plain.dtype in (torch.float32, torch.float64) else plain.float()
    if isinstance(value, Real) and not isinstance(value, bool):
        return torch.tensor([float(value)], dtype=torch.float64)
    kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
    raise GateError(f"threshold: expected a number or a tensor of numbers, but it returned {kind}")
