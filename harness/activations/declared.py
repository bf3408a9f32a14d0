"""Activations of one's own, as `harness.declare_activation` declared them, and where their gates are open."""

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
#: What keeps function modes from seeing a call; without it they see what a gate of the user's own computes.
_UNSEEN: Callable[[], Any] = getattr(torch._C, "DisableTorchFunction", nullcontext)


class GateError(Exception):
    """What a declaration says of a gate could not be had, or fits no pre-activation."""


@dataclass(frozen=True, eq=False)
class Declaration:
    """One activation of the user's own.

    Attributes:
        name: as in site names.
        threshold: z above it is open; a number, a tensor with a value for each unit, or what returns one.
        is_open: z → whether its gates are open; None where there is a threshold.
        takes_all: whether `is_open` takes the module, or all arguments of the call, beside z.
        target: what was declared, so that it lives; None where somebody else has to keep it.
    """

    name: str
    threshold: Any = None
    is_open: Callable[..., Any] | None = None
    takes_all: bool = False
    target: Any = None

    @property
    def asks(self) -> bool:
        """Whether the arguments of a call decide on its gate."""
        return self.is_open is not None or callable(self.threshold)

    def gate(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Gate:
        """The gate now; shut where `is_open` tells it.

        Args:
            args: what a function for the threshold is called with.
            kwargs: its keyword arguments.

        Raises:
            GateError: that function raises, or returns something else.
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
        """What `is_open` says of z, which it cannot change.

        Raises:
            GateError: it raises, or returns something else than a bool tensor of the shape of z.
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
        """The gate of a module as it is now; eps plays no part."""
        return self.gate((module,), {})

    def mask_of_module(self, module: nn.Module, z: Tensor) -> Tensor:
        """Which gates of a module are open on z."""
        given = z.detach().clone()
        return self.mask(z, (given, module) if self.takes_all else (given,), {})


class DeclaredCall(Mapping[str, Any]):
    """A call of a declared function, in the place of an activation's bound arguments: it has none.

    Args:
        declaration: of the function.
        function: as a function mode sees it.
        z: the pre-activation.
        args: of the call.
        kwargs: of the call.
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
        """Which of its gates are open."""
        given = z.detach().clone()
        if not self.declaration.takes_all:
            return self.declaration.mask(z, (given,), {})
        return self.declaration.mask(z, *self._given(given, context=False))

    def compute(self, z: Tensor) -> Any:
        """The function's output for z."""
        args, kwargs = self._given(z, context=True)
        return self._function(*args, **kwargs)

    def _given(self, z: Tensor, *, context: bool) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """The call's arguments with z in its place, and without an autograd.Function's context."""
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
FUNCTIONS: dict[int, Declaration] = {}  # by id: a dictionary of theirs would keep local functions for ever


def declared_names() -> set[str]:
    """Names of the activations that are declared now."""
    return {declaration.name for declaration in (*CLASSES.values(), *FUNCTIONS.values())}


def declared_class(cls: type[nn.Module]) -> Declaration | None:
    """The declaration of a class, or of the parent whose forward it has."""
    if not CLASSES:
        return None
    for known in cls.__mro__:
        if known in CLASSES:
            return CLASSES[known] if cls.forward is known.forward else None
    return None


def parts_of_declared(modules: Iterable[nn.Module]) -> set[nn.Module]:
    """The modules inside declared ones: what they compute is the declared one's own."""
    if not CLASSES:
        return set()
    owners = [module for module in modules if declared_class(type(module)) is not None]
    return {part for owner in owners for part in owner.modules() if part is not owner}


def declared_call(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> DeclaredCall | None:
    """A call of a declared function; None for others, and for calls without a tensor of floats."""
    declaration = FUNCTIONS.get(id(function))
    if declaration is None:
        return None
    z = pre_activation(args, kwargs)
    return None if z is None else DeclaredCall(declaration, function, z, args, kwargs)


def pre_activation(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """The first tensor of floats among the arguments.

    >>> pre_activation((2, torch.ones(1), torch.zeros(1)), {})
    tensor([1.])
    """
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor) and value.is_floating_point():
            return value
    return None


@contextmanager
def _apart(argument: str) -> Iterator[None]:
    """What is computed here is no part of the model; its errors say whose they are."""
    try:
        with torch.no_grad(), _UNSEEN():
            yield
    except Exception as error:
        raise GateError(f"{argument}: it raised {type(error).__name__}: {error}") from error


def _lows(value: Any) -> Tensor:
    """Thresholds as a gate has them: (units,) or (1,)."""
    if isinstance(value, Tensor) and not value.is_complex() and value.dtype != torch.bool:
        plain = value.detach().reshape(-1)
        return plain if plain.dtype in (torch.float32, torch.float64) else plain.float()
    if isinstance(value, Real) and not isinstance(value, bool):
        return torch.tensor([float(value)], dtype=torch.float64)
    kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
    raise GateError(f"threshold: expected a number or a tensor of numbers, but it returned {kind}")
