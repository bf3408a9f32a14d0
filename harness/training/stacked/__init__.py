"""Stacked training: many runs of one shape as one computation with a leading member axis."""

from harness.training.stacked.alike import alike, refusal
from harness.training.stacked.cohort import train_cohort

__all__ = ["alike", "refusal", "train_cohort"]
