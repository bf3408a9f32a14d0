"""The parameters of a stack: those of its members, stacked along a leading axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(slots=True)
class Parameter:
    """One parameter of all members that have it.

    Attributes:
        name: name in the state of a single model.
        members: places in the stack, contiguous.
        value: (M, ...) values of these M members.
        grad: (M, ...) gradients, overwritten in every backward pass.
        moments: the optimizer's running tensors, each like `value`.
        since: (M,) int64, the step after which Adam's count started; a remedy can restart it.
        fixed: whether the optimizer ignores it (slopes that a remedy sets).
    """

    name: str
    members: range
    value: Tensor
    grad: Tensor
    moments: list[Tensor] = field(default_factory=list)
    since: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    fixed: bool = False

    def __post_init__(self) -> None:
        if len(self.since) != len(self.members):
            self.since = np.zeros(len(self.members), np.int64)

    def row(self, place: int) -> int:
        """Row of `value` for the member at a place of the stack."""
        return place - self.members.start

    def state(self) -> tuple[Any, ...]:
        """Itself as tensors and plain values, without the gradients."""
        span, since = (self.members.start, self.members.stop), torch.from_numpy(self.since)
        return self.name, span, self.value, self.moments, since, self.fixed

    @classmethod
    def from_state(cls, state: Sequence[Any], device: torch.device) -> Parameter:
        """The parameter of such a state, on a device."""
        name, span, value, moments, since, fixed = state
        value, moments = value.to(device), [moment.to(device) for moment in moments]
        return cls(name, range(*span), value, torch.empty_like(value), moments, since.numpy(), fixed)

    def keep(self, places: Sequence[int]) -> Parameter | None:
        """Return the parameter of the members at these places only; None if none of them has it."""
        own = [k for k in places if k in self.members]
        if not own:
            return None
        rows = torch.tensor(own) - self.members.start
        first = list(places).index(own[0])
        return Parameter(
            self.name,
            range(first, first + len(own)),
            self.value[rows],
            torch.empty_like(self.grad[rows]),
            [moment[rows] for moment in self.moments],
            self.since[rows.numpy()],
            self.fixed,
        )


def stack(
    states: Sequence[Mapping[str, Tensor]], names: Sequence[str], fixed: Sequence[str] = ()
) -> list[Parameter]:
    """Stack the states of single models into parameters, in the order of the stack.

    Args:
        states: name → tensor, for each member.
        names: names of the parameters; the members that have a parameter must be adjacent.
        fixed: names of the parameters that the optimizer ignores.

    Raises:
        ValueError: the members that have a parameter are not adjacent.

    Example:
        >>> one, two = {"w": torch.zeros(2)}, {"w": torch.ones(2), "slope": torch.ones(1)}
        >>> [(p.name, tuple(p.value.shape), p.members) for p in stack([one, two], ["w", "slope"])]
        [('w', (2, 2), range(0, 2)), ('slope', (1, 1), range(1, 2))]
    """
    found = []
    for name in names:
        own = [k for k, state in enumerate(states) if name in state]
        if own != list(range(own[0], own[0] + len(own))):
            raise ValueError(f"{name}: expected its members beside each other, but got {own}")
        value = torch.stack([states[k][name].detach() for k in own]).contiguous()
        span = range(own[0], own[0] + len(own))
        found.append(Parameter(name, span, value, torch.empty_like(value), fixed=name in fixed))
    return found
