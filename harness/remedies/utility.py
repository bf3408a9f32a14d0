"""Bookkeeping of continual backprop: utilities, ages, and the number of replacements due.

Legend: M networks (one, or the members of a stack), O consumers of a site, F units.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Utilities:
    """Running statistics of one site's units in M networks.

    Attributes:
        utility: (M, F) float64, running mean of |h| Σ|w_out|, without bias correction.
        mean: (M, O, F) float64, running mean of h as each consumer reads it, without bias correction.
        age: (M, F) int64, steps since the unit was initialised.
        owed: (M,) float64, replacements due and not yet done.

    Example:
        >>> u = Utilities(1, 1, 2)
        >>> one = torch.ones(1, dtype=torch.float64)
        >>> for _ in range(4):
        ...     u.update(torch.tensor([[1.0, 2.0]]), torch.ones(1, 1, 2), 0.9 * one)
        ...     chosen = u.choose(0.25 * one, 2 * one, 0.9 * one)
        >>> u.age.tolist(), u.owed.tolist(), chosen[0].tolist()
        ([[4, 4]], [0.0], [0])
    """

    def __init__(self, networks: int, consumers: int, units: int) -> None:
        self.utility = torch.zeros(networks, units, dtype=torch.float64)
        self.mean = torch.zeros(networks, consumers, units, dtype=torch.float64)
        self.age = torch.zeros(networks, units, dtype=torch.int64)
        self.owed = torch.zeros(networks, dtype=torch.float64)

    def update(self, contribution: Tensor, mean: Tensor, decay: Tensor) -> None:
        """One step: every unit ages, and u ← ηu + (1-η) |h| Σ|w_out|.

        A batch that is empty or not finite changes nothing, or its NaN would stay for ever.

        Args:
            contribution: (M, F), mean of |h| over the batch times Σ|w_out|.
            mean: (M, O, F), mean of h.
            decay: (M,) float64, η.
        """
        known = contribution.isfinite().all(1) & mean.isfinite().flatten(1).all(1)
        self.age += known.unsqueeze(1)
        given = torch.where(known.unsqueeze(1), contribution.double(), self.utility)
        self.utility.lerp_(given, (1 - decay).unsqueeze(1))
        given = torch.where(known.view(-1, 1, 1), mean.double(), self.mean)
        self.mean.lerp_(given, (1 - decay).view(-1, 1, 1))

    def choose(self, rate: Tensor, maturity: Tensor, decay: Tensor) -> list[Tensor]:
        """Return the units to replace now, (n,) ascending for each network.

        Each step adds ρ times the number of units older than `maturity` to `owed`. Its whole part is then
        subtracted and determines how many units of least utility are chosen; ties go to the first unit.

        Args:
            rate: (M,) float64, ρ.
            maturity: (M,).
            decay: (M,) float64, η, used for the bias correction of the utilities.
        """
        eligible = self.age > maturity.unsqueeze(1)
        self.owed += rate * eligible.sum(1)
        paid = self.owed.floor()
        self.owed -= paid
        return [
            self._worst(k, eligible[k], int(n), float(decay[k])) if n else torch.empty(0, dtype=torch.int64)
            for k, n in enumerate(paid.tolist())
        ]

    def mean_of(self, network: int, units: Tensor, decay: float) -> list[Tensor]:
        """For each consumer, (n,) the bias-corrected mean output of the units."""
        begun = 1 - decay ** self.age[network, units].double()
        return [mean[units] / begun for mean in self.mean[network]]

    def forget(self, network: int, units: Tensor) -> None:
        """Reset the statistics of replaced units."""
        self.utility[network, units] = 0
        self.mean[network][:, units] = 0
        self.age[network, units] = 0

    def state(self) -> dict[str, Tensor]:
        """Return the tensors that `load` takes."""
        return {name: value.clone() for name, value in vars(self).items()}

    def load(self, state: dict[str, Any], networks: list[int] | None = None) -> None:
        """Restore what `state` returned, or some networks of it.

        Raises:
            ValueError: it is that of other units.
        """
        for name, own in vars(self).items():
            value = state[name]
            if value.shape[1:] != own.shape[1:]:
                there, given = self.utility.shape[1], state["utility"].shape[1]
                raise ValueError(f"expected a state of {there} units, but got one of {given}")
            setattr(self, name, value.clone() if networks is None else value[networks])

    def _worst(self, network: int, eligible: Tensor, n: int, decay: float) -> Tensor:
        there = eligible.nonzero().squeeze(1)
        utility = self.utility[network, there] / (1 - decay ** self.age[network, there].double())
        return there[torch.argsort(utility, stable=True)[:n]].sort().values
