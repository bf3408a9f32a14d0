"""Slow truth: the correct census, from explicit pre-activations and Python loops.

Does not use hooks. A model under test calls `keep(site, z)` on each pre-activation; here `keep` stores the
tensor and returns a copy, so that in-place activations do no harm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

COLUMNS = [
    *("evidence", "step", "site", "unit", "n", "active", "rate", "rate_upper", "silent_for"),
    *("mean", "std", "max", "non_finite", "grad_rms", "grad_norm", "state"),
]
STATES = ("unobserved", "non_finite", "dead", "starved", "rare", "always_on", "active")
NAN = float("nan")

Keep = Callable[[str, Tensor], Tensor]


def through(site: str, z: Tensor) -> Tensor:
    """The `keep` of an ordinary forward, which does nothing."""
    return z


@dataclass(frozen=True)
class TrueSite:
    """A site as its model's author knows it.

    Attributes:
        name: name of the module called, `#1` … for later calls, `:relu` for a function.
        axis: unit axis.
        producer: nearest module with per-unit parameters, None for a sum.
        function: the activation, whose gate is found by differentiation. None: ReLU, open iff z > 0.
        size: number of units; -1: cannot be observed.
        dead: units that are dead in every census, by construction.
        alive: units that are never dead.
        transposed: whether the second axis of the producer's weight counts the units.
    """

    name: str
    axis: int = -1
    producer: str | None = None
    function: Callable[[Tensor], Tensor] | None = None
    size: int = -1
    dead: frozenset[int] = frozenset()
    alive: frozenset[int] = frozenset()
    transposed: bool = False


def site(name: str, producer: str | None = None, size: int = -1, *dead: int, **more: Any) -> TrueSite:
    """A `TrueSite` in one line: its name, producer and size, its dead units, then any other attributes.

    Example:
        >>> site("relu", "fc1", 7, 2, 3, axis=1)
        TrueSite(name='relu', axis=1, producer='fc1', function=None, size=7, dead=frozenset({2, 3}), ...)
    """
    return TrueSite(name, producer=producer, size=size, dead=frozenset(dead), **more)


def state_of(n: int, active: int, non_finite: int, grad_rms: float, rare: float = 0.01) -> str:
    """One unit's state: the first that applies."""
    if n == 0:
        return "unobserved"
    if non_finite > 0:
        return "non_finite"
    if active == 0:
        return "dead"
    if grad_rms == 0:
        return "starved"
    if active / n < rare:
        return "rare"
    if active == n:
        return "always_on"
    return "active"


@cache
def upper_bound(active: int, n: int, confidence: float = 0.95) -> float:
    """Clopper and Pearson's one-sided upper bound, by scipy's root finder."""
    if n == 0:
        return 1.0
    return float(
        binomtest(active, n, alternative="less")
        .proportion_ci(confidence_level=confidence, method="exact")
        .high
    )


def open_gates(site: TrueSite, z: np.ndarray, eps: float = 1e-6) -> np.ndarray:
    """Which of the pre-activations let a gradient through; z: any shape, float64."""
    if site.function is None:
        return np.array([bool(v > 0) for v in z.ravel()], dtype=bool).reshape(z.shape)
    leaf = torch.tensor(z, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(site.function(leaf).sum(), leaf)
    return slope.abs().numpy() > eps


def by_unit(site: TrueSite, z: Tensor) -> np.ndarray:
    """Z as (inputs, units) in float64."""
    moved = np.moveaxis(z.detach().cpu().to(torch.float64).numpy(), site.axis, -1)
    return moved.reshape(-1, moved.shape[-1]) if moved.size else np.zeros((0, moved.shape[-1]))


@dataclass
class Truth:
    """Observes forwards and backwards of one model and computes the censuses."""

    sites: tuple[TrueSite, ...]
    values: dict[str, list[np.ndarray]] = field(default_factory=dict)
    gradients: dict[str, list[np.ndarray]] = field(default_factory=dict)
    silent: dict[str, list[int]] = field(default_factory=dict)
    norms: dict[str, list[float]] = field(default_factory=dict)
    history: list[pd.DataFrame] = field(default_factory=list)
    steps: int = 0

    def forward(
        self, run: Callable[[Keep], Tensor], observed: bool = True
    ) -> tuple[Tensor, list[tuple[str, Tensor]]]:
        """Run a forward; returns its output and the pre-activations, in order."""
        kept: list[tuple[str, Tensor]] = []

        def keep(site: str, z: Tensor) -> Tensor:
            kept.append((site, z))
            return z.clone()

        output = run(keep)
        self._count(kept)
        return output, kept

    def _count(self, kept: list[tuple[str, Tensor]]) -> None:
        known = {site.name: site for site in self.sites}
        opened: dict[str, np.ndarray] = {}
        seen: dict[str, int] = {}
        for name, z in kept:
            rows = by_unit(known[name], z)
            self.values.setdefault(name, []).append(rows)
            gates = open_gates(known[name], rows)
            opened[name] = gates.any(0) | opened.get(name, np.zeros(rows.shape[1], dtype=bool))
            seen[name] = seen.get(name, 0) + len(rows)
        for name, any_open in opened.items():
            before = self.silent.get(name, [0] * len(any_open))
            self.silent[name] = [0 if o else s + seen[name] for o, s in zip(any_open, before, strict=True)]

    def backward(self, loss: Tensor, kept: list[tuple[str, Tensor]]) -> None:
        """Run the backward of a loss, recording the gradient at every pre-activation."""
        known = {site.name: site for site in self.sites}
        wanted = [(name, z) for name, z in kept if z.requires_grad]
        if wanted:
            found = torch.autograd.grad(loss, [z for _, z in wanted], retain_graph=True, allow_unused=True)
            for (name, _), gradient in zip(wanted, found, strict=True):
                if gradient is not None:
                    self.gradients.setdefault(name, []).append(by_unit(known[name], gradient))
        loss.backward()

    def before_optimizer_step(self, model: nn.Module) -> None:
        """Read the gradients of every unit's incoming parameters."""
        for site in self.sites:
            owner = None if site.producer is None else _owner(model, site.producer)
            if owner is not None and hasattr(owner, "weight"):  # other parameter names have no rows per unit
                self.norms[site.name] = unit_norms(owner, site.transposed)

    def census(self, evidence: str = "stream") -> pd.DataFrame:
        """Close the window."""
        rows: list[dict[str, Any]] = []
        for site in self.sites:
            if site.name not in self.values:
                units = [-1] if site.size < 0 else range(site.size)
                rows += [self._unobserved(evidence, site.name, unit) for unit in units]
                continue
            z = np.concatenate(self.values[site.name])
            gates = open_gates(site, z)
            gradients = self.gradients.get(site.name)
            g = np.concatenate(gradients) if gradients else None
            for unit in range(z.shape[1]):
                norm = self.norms[site.name][unit] if site.name in self.norms else NAN
                column = None if g is None else g[:, unit]
                rows.append(self._row(evidence, site.name, unit, z[:, unit], gates[:, unit], column, norm))
        self.values, self.gradients, self.norms = {}, {}, {}
        self.history.append(pd.DataFrame(rows, columns=COLUMNS))
        return self.history[-1]

    def _unobserved(self, evidence: str, site: str, unit: int) -> dict[str, Any]:
        row = dict.fromkeys(COLUMNS, NAN) | {
            "evidence": evidence,
            "step": self.steps,
            "site": site,
            "unit": unit,
        }
        return row | {"n": 0, "active": 0, "rate_upper": 1.0, "non_finite": 0, "state": "unobserved"}

    def _row(
        self,
        evidence: str,
        site: str,
        unit: int,
        z: np.ndarray,
        gates: np.ndarray,
        gradient: np.ndarray | None,
        norm: float,
    ) -> dict[str, Any]:
        n = active = non_finite = 0
        finite: list[float] = []
        for value, gate in zip(z.tolist(), gates.tolist(), strict=True):
            n += 1
            active += bool(gate)
            if math.isfinite(value):
                finite.append(value)
            else:
                non_finite += 1
        mean = math.fsum(finite) / len(finite) if finite else NAN
        variance = math.fsum((v - mean) ** 2 for v in finite) / len(finite) if finite else NAN
        grad_rms = NAN
        if gradient is not None and len(gradient):
            grad_rms = math.sqrt(math.fsum(v * v for v in gradient.tolist()) / len(gradient))
        return {
            "evidence": evidence,
            "step": self.steps,
            "site": site,
            "unit": unit,
            "n": n,
            "active": active,
            "rate": active / n if n else NAN,
            "rate_upper": upper_bound(active, n),
            "silent_for": self.silent[site][unit],
            "mean": mean,
            "std": math.sqrt(variance) if finite else NAN,
            "max": max(finite) if finite else NAN,
            "non_finite": non_finite,
            "grad_rms": grad_rms,
            "grad_norm": norm,
            "state": state_of(n, active, non_finite, grad_rms),
        }


def _owner(model: nn.Module, producer: str) -> nn.Module:
    """The module that is a producer, or that owns the parameter with that name."""
    is_parameter = any(name == producer for name, _ in model.named_parameters())
    return model.get_submodule(producer.rpartition(".")[0] if is_parameter else producer)


def unit_norms(producer: nn.Module, transposed: bool = False) -> list[float]:
    """L2 norm of each unit's row of weight.grad and bias.grad; NaN without a gradient."""
    found = []
    for name in ("weight", "bias"):
        parameter = getattr(producer, name, None)
        if parameter is None:
            continue
        blocks = getattr(producer, "groups", 1) if transposed else 1
        if parameter.grad is None:
            return [NAN] * (getattr(producer, "weight").shape[1 if transposed else 0] * blocks)  # noqa: B009
        gradient = parameter.grad.detach().cpu().to(torch.float64).numpy()
        if transposed and name == "weight":  # (inputs, units per group, …): each group has its own inputs
            gradient = np.concatenate([np.swapaxes(g, 0, 1) for g in np.split(gradient, blocks)])
        found.append(gradient.reshape(len(gradient), -1))
    return [
        math.sqrt(sum(math.fsum(v * v for v in g[u].tolist()) for g in found)) for u in range(len(found[0]))
    ]


def true_training(
    model: nn.Module,
    reference: Callable[[Any, Any, Keep], Tensor],
    sites: tuple[TrueSite, ...],
    optimizer: torch.optim.Optimizer | None,
    batches: Iterable[Any],
    loss: Callable[[Tensor], Tensor],
    *,
    census_every: int | None = None,
    accumulate: int = 1,
) -> pd.DataFrame:
    """Train and take the true censuses: every `census_every` steps, and at the end of a non-empty window."""
    truth = Truth(sites)
    for i, x in enumerate(batches):
        output, kept = truth.forward(lambda keep, x=x: reference(model, x, keep))
        if optimizer is not None:
            truth.backward(loss(output), kept)
        if (i + 1) % accumulate:
            continue
        if optimizer is not None:
            truth.before_optimizer_step(model)
            optimizer.step()
            optimizer.zero_grad()
        truth.steps += 1
        if census_every and truth.steps % census_every == 0:
            truth.census()
    if any(len(rows) for window in truth.values.values() for rows in window):
        truth.census()
    return pd.concat(truth.history, ignore_index=True)


def true_scan(
    model: nn.Module,
    reference: Callable[[Any, Any, Keep], Tensor],
    sites: tuple[TrueSite, ...],
    batches: Iterable[Any],
    loss: Callable[[Tensor], Tensor] | None = None,
) -> pd.DataFrame:
    """Scan in evaluation mode, in which the model is left."""
    truth = Truth(sites)
    model.eval()
    for x in batches:
        output, kept = truth.forward(lambda keep, x=x: reference(model, x, keep))
        if loss is not None:
            truth.backward(loss(output), kept)
    return truth.census()
