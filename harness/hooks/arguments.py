"""Checks of a recorder's arguments, made at once so that a mistake does not surface hours later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from numbers import Real
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

from harness.detector.states import Thresholds

OBSERVE = ("train", "eval", "all")
STATISTIC = ("zero", "update", "update_gradient", "merge", "columns")  # methods of a UnitStatistic
STATE = ("steps", "stream", "probe")  # required keys of a recorder's own state
NUMBERS = (Tensor, Real, np.generic, np.ndarray)


class WrongArgument(ValueError):
    """An argument that only a forward pass shows to be wrong."""


def check(model: Any, observe: Any, census_every: Any, gate_eps: Any) -> None:
    """Check the arguments of a recorder.

    Raises:
        TypeError: `model` is not a module.
        ValueError: another argument is out of range.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, but got {type(model).__name__}")
    if observe not in OBSERVE:
        raise ValueError(f"observe: expected one of {', '.join(OBSERVE)}, but got {observe!r}")
    whole = isinstance(census_every, int) and not isinstance(census_every, bool)
    if census_every is not None and (not whole or census_every < 1):
        raise ValueError(f"census_every: expected a whole number above 0 or None, but got {census_every!r}")
    if not isinstance(gate_eps, int | float) or not 0 <= gate_eps < 1:
        raise ValueError(f"gate_eps: expected a number at least 0 and below 1, but got {gate_eps!r}")


def check_state(state: Any) -> None:
    """Check the state of a recorder: completed steps, and two groups of windows by site.

    Raises:
        TypeError: it, or a part, has the wrong type.
        ValueError: a part is missing, the number of steps is negative, or a window is incomplete.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"state: expected that of a Recorder, but got {type(state).__name__}")
    if not set(STATE) <= set(state):
        raise ValueError(f"expected the keys {', '.join(STATE)}, but got {', '.join(state)}")
    steps, *windows = (state[name] for name in STATE)
    if not hasattr(steps, "__index__") or isinstance(steps, bool):
        raise TypeError(f"state: expected a whole number of steps, but got {type(steps).__name__}")
    if int(steps) < 0:
        raise ValueError(f"state: expected at least 0 steps, but got {int(steps)}")
    for name, sites in zip(STATE[1:], windows, strict=True):
        if not isinstance(sites, Mapping):
            raise TypeError(f"state: expected the windows by site as {name}, but got {type(sites).__name__}")
        for site, saved in sites.items():
            if not isinstance(saved, Mapping):
                raise TypeError(
                    f"state: expected a mapping as {name} of {site}, but got {type(saved).__name__}"
                )
            if missing := [part for part in ("site", "sums") if not isinstance(saved.get(part), Mapping)]:
                raise ValueError(f"state: {name} of {site} lacks {' and '.join(missing)}")


def check_options(
    thresholds: Any, axis: Any, statistics: Any, flags: dict[str, Any], across_ranks: Any = None
) -> None:
    """Check the types of a recorder's options.

    Raises:
        TypeError: an option has the wrong type; the message names it.
    """
    if thresholds is not None and not isinstance(thresholds, Thresholds):
        raise TypeError(f"thresholds: expected harness.Thresholds, but got {type(thresholds).__name__}")
    if axis is not None:
        if not isinstance(axis, Mapping):
            raise TypeError(f"axis: expected a mapping of site names to axes, but got {type(axis).__name__}")
        for name, number in axis.items():
            if not isinstance(name, str) or not isinstance(number, int) or isinstance(number, bool):
                raise TypeError(f"axis: expected site names and whole numbers, but got {name!r}: {number!r}")
    if isinstance(statistics, str | bytes) or not isinstance(statistics, Sequence):
        raise TypeError(f"statistics: expected a list of statistics, but got {type(statistics).__name__}")
    for one in statistics:
        if not all(callable(getattr(one, name, None)) for name in STATISTIC):
            raise TypeError(f"statistics: expected objects with {', '.join(STATISTIC)}, but got {one!r}")
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise TypeError(f"{name}: expected True or False, but got {value!r}")
    if across_ranks is not None and not isinstance(across_ranks, bool):
        raise TypeError(f"across_ranks: expected True, False or None, but got {across_ranks!r}")


def check_numbers(loss: Any, metrics: Mapping[str, Any] | None = None) -> None:
    """Check the loss and the metrics of a training step.

    Raises:
        TypeError: a value is neither None, a number nor a tensor, or a metric is called "step".
    """
    for name, value in (("loss", loss), *(metrics or {}).items()):
        if value is not None and not isinstance(value, NUMBERS):
            raise TypeError(f"{name}: expected a number or a tensor, but got {type(value).__name__}")
    if metrics and "step" in metrics:
        raise TypeError("step: expected another name of a metric, since the steps are counted")


def check_one_number(loss: Any) -> None:
    """Check that a loss is one number, which the evidence needs.

    Raises:
        ValueError: it has several values.
    """
    shape = tuple(getattr(loss, "shape", ()))
    if prod(shape) != 1:
        raise ValueError(f"loss: expected one number for the evidence, but got shape {shape}: give its mean")


def check_loss_function(loss: Any) -> None:
    """Check that a loss can be called as loss(output, batch).

    Raises:
        TypeError: it is not callable, or it is a loss class instead of an instance.
    """
    if isinstance(loss, type):
        raise TypeError(
            f"loss: expected a function (output, batch) → scalar, but got the class {loss.__name__}"
        )
    if not callable(loss):
        raise TypeError(f"loss: expected a function (output, batch) → scalar, but got {type(loss).__name__}")


def as_optimizers(given: Optimizer | Sequence[Optimizer] | None) -> list[Optimizer]:
    """None, one optimizer or several, as a list.

    Raises:
        TypeError: an element is not an optimizer.
    """
    several = given if isinstance(given, Sequence) else [] if given is None else [given]
    return [_without_wrapper(one) for one in several]


def _without_wrapper(given: Any) -> Optimizer:
    """An optimizer, or the one inside a wrapper, such as Accelerate's, which has no hooks of its own."""
    inner = given
    while not (isinstance(inner, Optimizer) and "param_groups" in vars(inner)):
        parts = getattr(inner, "__dict__", {}).values()
        inner = next((part for part in parts if isinstance(part, Optimizer)), None)
        if inner is None:
            raise TypeError(f"optimizer: expected torch.optim optimizers, but got {type(given).__name__}")
    return inner
