"""Figures of claims: what was measured in each arm or along a dose, and beside it what decided."""

from experiments.figures.arms import arms
from experiments.figures.doses import doses

__all__ = ["arms", "doses"]
