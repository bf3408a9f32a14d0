"""Comparison of runs: effects, rankings, survival, dose–response, phase diagrams; frames in, frames out.

The seed is the unit of analysis. Runs that diverged, failed or are not finished are counted in columns of
their own, and never as 0 %.
"""

from __future__ import annotations

from harness.compare.comparison import Comparison, compare_runs
from harness.compare.dose import critical, dose_response
from harness.compare.effects import effects
from harness.compare.frames import aliases, factors, outcomes
from harness.compare.lives import Lives, lives
from harness.compare.logrank import logrank
from harness.compare.phase import phase
from harness.compare.ranking import ranking
from harness.compare.survival import dead_over_time, survival, two_state_rates
from harness.compare.words import sentences

__all__ = [
    "Comparison",
    "Lives",
    "aliases",
    "compare_runs",
    "critical",
    "dead_over_time",
    "dose_response",
    "effects",
    "factors",
    "lives",
    "logrank",
    "outcomes",
    "phase",
    "ranking",
    "sentences",
    "survival",
    "two_state_rates",
]
