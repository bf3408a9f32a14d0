"""How far the early steps of a training went, in words."""

from __future__ import annotations

import numpy as np

from harness.attribution.evidence import Evidence
from harness.attribution.findings import Findings
from harness.attribution.lasting_causes import (
    LONG_LAYER_STEP,
    early_step,
    last_steps,
    longest_layer_step,
    longest_step,
)
from harness.attribution.loss_rises import CALM, LONG_STEP


def moved(found: Findings, evidence: Evidence) -> str:
    """How far early steps went."""
    ratio, longest = early_step(evidence.steps), longest_step(evidence.steps, found.deaths)
    if np.isnan(ratio):
        return "how far early steps went is not known"
    if np.isinf(ratio):
        return "early steps made parameters infinite"
    if np.isinf(longest):
        return f"an early step moved {100 * ratio:.3g} % of ‖θ‖ (median), the longest not finite"
    late = last_steps(evidence.steps, found.deaths, found.diverged_at)
    layer = longest_layer_step(evidence.steps, found.deaths, found.diverged_at)
    hidden = layer >= LONG_LAYER_STEP and ratio < LONG_STEP
    of_layer = f", and one layer's own weights by {_share(layer)}" if hidden else ""
    then = (
        f"; those before most deaths, or the divergence, {_share(late)}"
        if late > max(CALM, 3 * ratio)
        else ""
    )
    far = f", the longest {_share(longest)}" if longest > 3 * ratio else ""
    return f"an early step moved {_share(ratio)} of ‖θ‖ (median){far}{of_layer}{then}"


def _share(ratio: float) -> str:
    """A share of ‖θ‖ after the step, with two digits; near 100 %, it was far longer than ‖θ‖ before it."""
    if 0.9 <= ratio <= 1:
        return "over 90 %"
    return f"{100 * ratio:.{2 if ratio < 0.995 else 3}g} %"
