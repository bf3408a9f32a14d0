"""Figures, one function each, from tidy frames to a matplotlib Figure, without pyplot or a display.

`caption(plots.rate_map)` explains how to read a figure; `with look("dark"):` draws for a dark page.
"""

from __future__ import annotations

from harness.report.plots.activations import activation, activations
from harness.report.plots.base import CAPTIONS, caption
from harness.report.plots.comparison import effects, ranking
from harness.report.plots.prescription import trade_off
from harness.report.plots.sweeps import dead_over_time, dose_response, phase, survival
from harness.report.plots.times import dead_share, lifelines, overlap
from harness.report.plots.training import training
from harness.report.plots.units import gradients, rate_histogram, rate_map, state_bars
from harness.report.style import look

__all__ = [
    "CAPTIONS",
    "activation",
    "activations",
    "caption",
    "dead_over_time",
    "dead_share",
    "dose_response",
    "effects",
    "gradients",
    "lifelines",
    "look",
    "overlap",
    "phase",
    "ranking",
    "rate_histogram",
    "rate_map",
    "state_bars",
    "survival",
    "trade_off",
    "training",
]
