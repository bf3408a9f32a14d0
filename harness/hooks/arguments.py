"""Arguments of a recorder: checked at once, so that a mistake is not found hours later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

OBSERVE = ("train", "eval", "all")


class WrongArgument(ValueError):
    """An argument that only a forward shows to be wrong."""


def check(model: Any, observe: Any, census_every: Any, gate_eps: Any) -> None:
    """Refuse what a recorder cannot work with.

    Raises:
        TypeError: `model` is no module.
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


def as_optimizers(given: Optimizer | Sequence[Optimizer] | None) -> list[Optimizer]:
    """None, one or several as a list.

    Raises:
        TypeError: something else is among them.
    """
    several = given if isinstance(given, Sequence) else [] if given is None else [given]
    found = list(several)
    for one in found:
        if not isinstance(one, Optimizer):
            raise TypeError(f"optimizer: expected torch.optim optimizers, but got {type(one).__name__}")
    return found
