"""The parts of a training that a user's function makes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from inspect import signature
from numbers import Integral, Real
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


def check_make(make: Any) -> None:
    """Check that a function can be called with a seed.

    Raises:
        TypeError: it cannot.
    """
    try:
        accepted = signature(make)
    except (TypeError, ValueError):  # written in C
        return
    try:
        accepted.bind(0)
    except TypeError:
        raise TypeError(
            f"make: expected a function of one argument, the seed, but got one of {accepted}"
        ) from None


def check_amounts(steps: Any, seeds: Any, budget: Any, workers: Any) -> None:
    """Check the numbers of `prescribe`.

    Raises:
        TypeError: one is of another type.
        ValueError: one is out of range.
    """
    for name, value, least in (("steps", steps, 1), ("seeds", seeds, 2), ("workers", workers, 1)):
        if name == "workers" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise TypeError(f"{name}: expected a whole number, but got {value!r}")
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, but got {value}")
    if isinstance(budget, bool) or not isinstance(budget, Real):
        raise TypeError(f"budget: expected a number of whole trainings per worker, but got {budget!r}")
    if not float(budget) > 0:
        raise ValueError(f"budget: expected more than 0, but got {float(budget):g}")


def checked_loss(parts: Parts, loss: Any) -> Tensor | None:
    """Return the loss of a step, for which `backward` and the optimizer's step follow.

    Raises:
        TypeError: it is neither None nor a tensor.
        ValueError: it is no scalar with a graph, or the optimizer must be given the whole step.
    """
    if loss is None:
        return None
    wanted = "loss: expected one number as a tensor with its graph, or None if it makes the whole step itself"
    if not isinstance(loss, Tensor):
        raise TypeError(f"{wanted}, but it returned {type(loss).__name__}")
    if loss.numel() != 1 or not loss.requires_grad:
        graph = "" if loss.requires_grad else " without a graph"
        raise ValueError(f"{wanted}, but it returned a tensor of shape {tuple(loss.shape)}{graph}")
    closure = signature(type(parts.optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise ValueError(
            f"optimizer: {type(parts.optimizer).__name__} computes the loss several times in a step. Make "
            "the whole step in the function of the loss (optimizer.step(closure)), and return None"
        )
    return loss


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
    if isinstance(parts.loss, nn.Module) or not callable(parts.loss):
        kind = type(parts.loss).__name__
        raise TypeError(f"make: expected a function (model, batch) → loss as the fourth, but got {kind}")
    if parts.metric is not None and not callable(parts.metric):
        raise TypeError(f"make: expected a function as the metric, but got {type(parts.metric).__name__}")
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
