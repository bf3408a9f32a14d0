"""Comparison of runs: effects, rankings, survival, dose–response, phase diagrams; frames in, frames out.

The seed is the unit of analysis. Runs that diverged, failed or are not finished are counted in separate
columns, never as 0 %.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.lazy_imports import lazy_imports

if TYPE_CHECKING:
    from harness.compare.comparison import Comparison, compare_runs
    from harness.compare.dose_curves import critical, dose_response
    from harness.compare.effect_sizes import effects
    from harness.compare.frames import aliases, factors, outcomes
    from harness.compare.life_tables import Lives, lives
    from harness.compare.log_rank import logrank
    from harness.compare.phase_diagram import phase
    from harness.compare.ranks import ranking
    from harness.compare.summary_text import sentences
    from harness.compare.survival_curves import dead_over_time, survival, two_state_rates

_WHERE = {
    "Comparison": "harness.compare.comparison",
    "Lives": "harness.compare.life_tables",
    "aliases": "harness.compare.frames",
    "compare_runs": "harness.compare.comparison",
    "critical": "harness.compare.dose_curves",
    "dead_over_time": "harness.compare.survival_curves",
    "dose_response": "harness.compare.dose_curves",
    "effects": "harness.compare.effect_sizes",
    "factors": "harness.compare.frames",
    "lives": "harness.compare.life_tables",
    "logrank": "harness.compare.log_rank",
    "outcomes": "harness.compare.frames",
    "phase": "harness.compare.phase_diagram",
    "ranking": "harness.compare.ranks",
    "sentences": "harness.compare.summary_text",
    "survival": "harness.compare.survival_curves",
    "two_state_rates": "harness.compare.survival_curves",
}

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

__getattr__, __dir__ = lazy_imports(__name__, _WHERE)
