"""Types and ranges of the remedies: what is done about units that do not work."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from harness.config.enums import Chosen, Swapped
from harness.config.ranges import limits


@dataclass
class Remedy:
    """What is done about units that do not work, while they are trained; `none` does nothing.

    Remedies act after a step, once it has been measured, and never after the last one. What they decide on
    (scores, silence) is the batch of that step.
    """

    name: str = MISSING


@dataclass
class Redo(Remedy):
    """Recycling dormant units (Sokar et al. 2023)."""

    every: int = limits(at_least=1)
    tau: float = limits(at_least=0, at_most=1e6)
    choose: Chosen = MISSING


@dataclass
class ContinualBackprop(Remedy):
    """Replacing the least useful units at every step (Dohare et al. 2024)."""

    rate: float = limits(above=0, at_most=1)
    maturity: int = limits(at_least=0)
    decay: float = limits(at_least=0, below=1)


@dataclass
class ShrinkPerturb(Remedy):
    """Shrinking all parameters towards 0 and adding fresh ones (Ash & Adams 2020)."""

    every: int = limits(at_least=1)
    shrink: float = limits(at_least=0, at_most=1)
    noise: float = limits(at_least=0, at_most=1e6)


@dataclass
class BiasLift(Remedy):
    """Raising the biases of silent units."""

    every: int = limits(at_least=1)
    share: float = limits(above=0, at_most=1)


@dataclass
class LeakySwap(Remedy):
    """Leaky ReLUs in place of ReLUs."""

    every: int = limits(at_least=1)
    above: float = limits(at_least=0, below=1)
    units: Swapped = MISSING
    slope: float = limits(above=0, at_most=1000)


@dataclass
class Sugar(Remedy):
    """ReLU with a surrogate gradient (Horuz et al. 2025)."""

    alpha: float = limits(at_least=-1000, at_most=1000)


@dataclass
class Auto(Remedy):
    """What the diagnosis asks for, at a census with too many dead units."""

    above: float = limits(at_least=0, below=1)
    every: int = limits(at_least=1)
