"""Figures of claims: what was measured in each arm or along a dose, and beside it what decided."""

from experiments.figures.arms import arms
from experiments.figures.doses import doses
from experiments.figures.tasks import tasks

__all__ = ["arms", "doses", "tasks"]
