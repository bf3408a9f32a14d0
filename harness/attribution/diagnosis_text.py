"""A diagnosis in words: what can honestly be said, each sentence with its number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from harness.attribution.causes import MEANING, is_inconclusive
from harness.attribution.events import Event
from harness.attribution.evidence import FACTORS, Evidence
from harness.attribution.findings import BIRTH, Findings

ORDINARY = 0.01  # ‖Δθ‖ / ‖θ‖ of a step below which it is none that kills by its length
#: What one run cannot tell apart, and what would tell.
INDISTINGUISHABLE = {
    "labels": "labels that are wrong, and a task that changed on purpose",
    "input_offset": "off-centre inputs and a learning rate that is too high for them: they multiply",
}
FACTOR_NAMES = {
    "weights": "their weights",
    "decay": "weight decay",
    "bias": "their bias",
    "norm": "norm statistics",
    "upstream": "layers below",
    "data": "the inputs themselves",
}


def diagnosis_text(
    cause: str, causal: Sequence[Event], found: Findings, units: pd.DataFrame, evidence: Evidence
) -> str:
    """The sentences of a diagnosis.

    Args:
        cause: label of the run.
        causal: the events behind it.
        found: what the rules decided from.
        units: the dead units, as in `Diagnosis.units`.
        evidence: the tables.
    """
    parts = [_count(found)]
    if evidence.error:
        parts.append(f"The evidence is incomplete: {evidence.error}.")
    if found.diverged_at is not None:
        parts.append(f"Training diverged at step {found.diverged_at:,}; this is the last census before.")
    if cause == "none":
        return " ".join([*parts, _no_cause(found)])
    parts += [*_deaths(units), *_births(found)]
    parts.append(f"Cause: {cause} ({MEANING[cause]}){_reason(cause, causal, units, evidence)}.")
    doubts = _doubts(cause, causal, evidence)
    if doubts:
        parts.append(f"Not told apart in one run: {'; '.join(doubts)}.")
    return " ".join(parts)


def _no_cause(found: Findings) -> str:
    dead = found.units[found.units["dead"]]
    if is_inconclusive(dead):
        return "No cause is told: n is too small; a unit that is silent on so few inputs may be alive."
    born = int(dead["born"].sum())
    chance = f" ({born:,} of them were born so, which chance does)" if born > found.dead / 2 else ""
    return f"Nothing to explain: too few units are dead for a cause to be told{chance}."


def _count(found: Findings) -> str:
    if not found.total:
        return "Nothing was observed: no statement about dead units can be made."
    dead = found.units[found.units["dead"]]
    n = int(dead["n"].min()) if len(dead) else int(found.units["n"].min())
    bound = f", rate < {100 * dead['rate_upper'].max():.2g} %" if len(dead) else ""
    where = "held-out probe" if found.evidence == "probe" else "training stream"
    share = 100 * found.dead / found.total
    return f"{found.dead:,} of {found.total:,} units dead ({share:.1f} %; n = {n:,} on the {where}{bound})."


def _deaths(units: pd.DataFrame) -> list[str]:
    died = units[~units["born"]]
    if died.empty:
        return []
    parts = []
    when = died["died_at"].dropna()
    text = f"{len(died):,} died"
    if len(when):
        first, last = int(when.quantile(0.05, "lower")), int(when.quantile(0.95, "higher"))
        text += f" at step {first:,}" if first == last else f" in steps {first:,} to {last:,} (nine in ten)"
    parts.append(text + ".")
    sudden = died["suddenness"].dropna()
    if len(sudden) >= 5:
        middle = float(sudden.median())
        how = "jumped" if middle >= 0.8 else "drifted" if middle < 0.3 else "fell in a few windows"
        lost = f"at least {100 * middle:.0f} % of their margin in one window"
        parts.append(f"They {how}: half of them lost {lost}.")
    shares = died[list(FACTORS)].mean().dropna()
    if len(shares) and shares.max() > 0:
        top = shares.sort_values(ascending=False)
        named = ", ".join(f"{FACTOR_NAMES[str(f)]} {100 * s:.0f} %" for f, s in top.items() if s >= 0.1)
        parts.append(f"Of the rate they lost: {named} (exact Shapley shares).")
    return parts


def _births(found: Findings) -> list[str]:
    born = found.units[found.units["dead"] & found.units["born"]]
    if born.empty:
        return []
    text = f"{len(born):,} {'was' if len(born) == 1 else 'were'} born dead"
    parts = born[list(BIRTH)].median()
    if parts.notna().any():
        text += (
            f" (medians, in deviations of their pre-activation: bias {parts['birth_bias']:+.1f}, mean of the "
            f"weights {parts['birth_weight_mean']:+.1f}, the rest {parts['birth_rest']:+.1f})"
        )
    return [text + "."]


def _reason(name: str, causal: Sequence[Event], units: pd.DataFrame, evidence: Evidence) -> str:
    first = evidence.layers.iloc[0] if len(evidence.layers) else None
    if causal:
        event = causal[0]
        when = units.loc[~units["born"], "died_at"].dropna()
        after = int((when >= event.step - 1).sum())
        dated = f"; {after:,} of {len(when):,} dated deaths came at or after it" if len(when) else ""
        return f"; {event.text}{dated}"
    if name == "input_shift":
        return "; they drifted: no single step stands out"
    if name == "step_size" and len(evidence.steps):
        steps = evidence.steps.head(max(20, len(evidence.steps) // 10))
        ratio = float((steps["update_norm"] / steps["weight_norm"]).median())
        if np.isnan(ratio):
            return "; no event stands before the deaths"
        moved = f"an early step moved {100 * ratio:.2g} % of ‖θ‖ (median)"
        usual = ", which is nothing out of the ordinary: the cause may be none of those known here"
        return f"; no event stands before the deaths; {moved}{usual if ratio < ORDINARY else ''}"
    if name == "input_offset" and first is not None:
        return (
            f"; rms of the first layer's inputs {first['input_rms']:.3g}, "
            f"their mean makes {100 * first['off_centre']:.0f} % of their power"
        )
    if name == "weight_init":
        if evidence.layers.empty:
            return "; a guess: the start could not be run again, so nothing is known of their births"
        z, gain = evidence.layers["weight_z"].min(), evidence.layers["gain"].max()
        return f"; lowest layer mean of weights {z:+.1f} standard errors, largest gain {gain:.2g}× He"
    if name == "decay" and len(evidence.steps):
        growth, decay = evidence.layers["growth"].median(), evidence.steps["weight_decay"].max()
        return f"; weight decay {decay:.3g}, layers' ‖W‖ at {growth:.2g}× their start (median)"
    if name == "bias_lr" and len(evidence.steps):
        lr, bias = evidence.steps["lr"].median(), evidence.steps["lr_bias"].median()
        return f"; learning rate {bias:.3g} for biases, {lr:.3g} for weights"
    return ""


def _doubts(name: str, causal: Sequence[Event], evidence: Evidence) -> list[str]:
    first = evidence.layers.iloc[0] if len(evidence.layers) else None
    doubts = [text for label, text in INDISTINGUISHABLE.items() if label == name]
    if name == "step_size" and not causal:
        if first is not None and np.isfinite(first["off_centre"]) and first["off_centre"] > 0.2:
            share = 100 * first["off_centre"]
            doubts.append(f"step size and off-centre inputs (mean² is {share:.0f} % of the inputs' power)")
        doubts.append("step size and labels that were wrong from the start")
    if name in ("step_size", "labels") and len(evidence.steps) and evidence.steps["loss"].isna().all():
        doubts.append("labels (no loss was given: recorder.step(loss=loss))")
    return doubts
