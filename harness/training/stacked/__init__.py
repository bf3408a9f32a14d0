"""Stacked training: many runs of the same shape as one computation with a leading member axis."""

from harness.training.stacked.cohort import train_cohort

__all__ = ["train_cohort"]
