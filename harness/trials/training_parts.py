"""The parts of a training that a user's function makes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class Parts(NamedTuple):
    """What `make(seed)` returns.

    Attributes:
        model: a newly built model.
        optimizer: the optimizer of its parameters.
        batches: an iterable of batches, restarted when it ends, or a function step → batch.
        loss: (model, batch) → the loss, or None if the function performs the whole step itself.
        metric: model → a score on held-out data, higher is better; None: minus the mean loss of the last
            tenth of the steps.
    """

    model: nn.Module
    optimizer: Optimizer
    batches: Iterable[Any] | Callable[[int], Any]
    loss: Callable[[nn.Module, Any], Tensor | None]
    metric: Callable[[nn.Module], float] | None = None


Make = Callable[[int], Parts | tuple[Any, ...]]


def checked(made: Any) -> Parts:
    """Return what `make` returned as `Parts`; TypeError if it is no training."""
    if not isinstance(made, tuple) or len(made) not in (4, 5):
        raise TypeError(
            "make: expected (model, optimizer, batches, loss) or the same with a metric, "
            f"but got {type(made).__name__}"
        )
    parts = Parts(*made)
    if not isinstance(parts.model, nn.Module) or not isinstance(parts.optimizer, Optimizer):
        names = type(parts.model).__name__, type(parts.optimizer).__name__
        raise TypeError(f"make: expected a module and an optimizer first, but got {names[0]} and {names[1]}")
    return parts


def endless(batches: Iterable[Any] | Callable[[int], Any]) -> Iterator[Any]:
    """Yield batches without end; an iterable starts again when it ends."""
    if callable(batches):
        step = 0
        while True:
            yield batches(step)
            step += 1
    while True:
        count = 0
        for batch in batches:  # type: ignore[union-attr]
            count += 1
            yield batch
        if not count:
            raise ValueError(
                "batches: expected at least one in every pass, but there is none (a used-up iterator?)"
            )


class _Seen(Exception):
    """Raised to stop at the model's first call."""


def inputs_of(parts: Parts, batch: Any) -> Any:
    """Return the arguments with which a step calls the model, without running its forward."""
    seen: list[Any] = []

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(args or kwargs)
        raise _Seen

    handle = parts.model.register_forward_pre_hook(before, with_kwargs=True)
    try:
        with suppress(_Seen), torch.no_grad():
            parts.loss(parts.model, batch)
    finally:
        handle.remove()
    return seen[0] if seen else batch
