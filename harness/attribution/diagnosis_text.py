"""A diagnosis in words: only what the evidence supports, each sentence with its number."""

from __future__ import annotations

import pandas as pd

from harness.attribution.cause_text import cause_text, doubts, no_cause, too_few_inputs
from harness.attribution.causes import Cause
from harness.attribution.dead_units import has_known_layer, is_only_evaluated, opens_in_training
from harness.attribution.event import OUTSIDE
from harness.attribution.evidence import FACTORS, Evidence
from harness.attribution.findings import BIRTH, LEAST_DEAD, Findings
from harness.attribution.last_window import closed_within
from harness.attribution.starved_text import starved_text, unreached_text
from harness.attribution.unit_causes import BIRTH_REASONS, birth_reasons, opens_at_birth
from harness.detector.counts import (
    birth_words,
    dead_words,
    non_finite_words,
    of_the_dead,
    on,
    uncounted_words,
    when_counted,
)

BEFORE = 30  # steps before a divergence within which an event belongs to it
#: The parts of a mean pre-activation that are always named.
PART_NAMES = {"birth_bias": "bias", "birth_weight_mean": "mean of the weights", "birth_rest": "the rest"}
FACTOR_NAMES = {
    "weights": "their weights",
    "decay": "weight decay",
    "bias": "their bias",
    "norm": "norm statistics",
    "upstream": "layers below",
    "whole": "the rest of the network",  # where no single layer makes their pre-activation
    "data": "the inputs themselves",
}


def diagnosis_text(cause: Cause, found: Findings, units: pd.DataFrame, evidence: Evidence) -> str:
    """The sentences of a diagnosis.

    Args:
        cause: cause of the run.
        found: findings that the rules used.
        units: the dead units, as in `Diagnosis.units`.
        evidence: the tables.
    """
    parts = [
        *_divergence(found),
        _count(found),
        *_uncounted(found),
        *closed_within(found),
        *starved_text(found),
        *unreached_text(found, evidence),
        *_contrast(found),
    ]
    if evidence.error:
        parts.append(f"The evidence is incomplete: {evidence.error}.")
    if not found.total:
        return " ".join(parts)
    if evidence.replayed:
        few = f"{evidence.replayed:,} inputs of each time"
        parts.append(f"To answer in time, births and shares rest on {few}.")
    if cause.label == "none":
        return " ".join([*parts, *_births(found, evidence), *no_cause(found)])
    parts += [*_deaths(units, found, evidence), *_births(found, evidence), *too_few_inputs(found)]
    parts.append(cause_text(cause, found, evidence))
    if others := doubts(cause.label, cause.events, evidence):
        parts.append(f"Not told apart in one run: {'; '.join(others)}.")
    return " ".join(parts)


def _contrast(found: Findings) -> list[str]:
    """Units that are dead on held-out inputs but alive on training inputs, if there are many."""
    if found.evidence != "probe" or found.is_after_divergence or not found.total:
        return []
    dead = found.units[found.units["dead"]]
    alive = dead[opens_in_training(dead)]
    if len(alive) < LEAST_DEAD * found.total:
        return []
    text = f"{len(alive):,} of the dead open on the latest inputs of the training, in training mode."
    replayed = alive[alive["rate_eval"].notna()]
    closed = int(is_only_evaluated(replayed).sum())
    if len(replayed):
        text += (
            f" On the same inputs, with the running statistics of the norms that evaluation uses, {closed:,} "
            f"of {len(replayed):,} open on none."
        )
    return [text]


def _count(found: Findings) -> str:
    text = dead_words(found.units, _when(found), on(found.evidence))
    text = text if found.units["state"].eq("non_finite").all() else text + non_finite_words(found.units)
    if found.on_probe is None:
        return text
    dead, total = found.on_probe
    return f"{text} On the held-out probe, {dead:,} of {total:,} are dead."


def _uncounted(found: Findings) -> list[str]:
    return [] if found.uncounted is None else [uncounted_words(found.at, found.uncounted)]


def _when(found: Findings) -> str:
    return when_counted(found.at, found.uncounted) if found.diverged_at is None else ""


def _divergence(found: Findings) -> list[str]:
    """When training diverged, and what the censuses show of the time before."""
    if found.diverged_at is None:
        return []
    text = f"Training diverged at step {found.diverged_at:,}"
    near = [e for e in found.events if found.diverged_at - BEFORE <= e.step <= found.diverged_at]
    near = [event for event in near if event.column in OUTSIDE][:1] or near
    start = max(near, key=lambda event: event.ratio, default=None)
    text += f" ({start.text})" if start is not None else ""
    if not found.is_after_divergence:
        return [f"{text}. The last census before that, of step {found.at:,}:"]
    if found.before is None:
        return [f"{text}. The census of step {found.at:,}, as none was taken before that:"]
    step, dead, total = found.before
    were = "was" if dead == 1 else "were"
    then = f"At the last census before, step {step:,}, {dead:,} of {total:,} units {were} dead"
    return [f"{text}. {then}; at step {found.at:,}, after it:"]


def _deaths(units: pd.DataFrame, found: Findings, evidence: Evidence) -> list[str]:
    died = units[~units["born"]]
    if died.empty:
        return []
    parts = []
    when = died["died_at"].dropna()
    text = f"{of_the_dead(found.dead, _when(found))}, {len(died):,} died"
    if len(when):
        first, last = int(when.quantile(0.05, "lower")), int(when.quantile(0.95, "higher"))
        text += f" at step {first:,}" if first == last else f" in steps {first:,} to {last:,}"
        text += " (nine in ten)" if first != last or when.min() != when.max() else ""
    else:
        text += ", at steps that are not known"
    parts.append(text + ".")
    sudden = died["suddenness"].dropna()
    if len(sudden) >= 5:
        middle = float(sudden.median())
        how = "jumped" if middle >= 0.8 else "drifted" if middle < 0.3 else "fell in a few windows"
        fall = f"at least {100 * middle:.0f} % of the fall from their largest margin"
        held = f"one window holds {fall}" if middle >= 0.005 else "no single window holds it"
        parts.append(f"They {how}: for half of them, {held}.")
    if evidence.has_other_forward:
        return parts  # what a replay shows of the start is not what was
    shares = died[list(FACTORS)].mean().dropna()
    whole = died.loc[~has_known_layer(died, evidence.layers), "upstream"].sum() / max(
        1, died["upstream"].count()
    )
    if len(shares) and shares.max() > 0:
        shares["upstream"], shares["whole"] = shares["upstream"] - whole, whole
        top = shares.sort_values(ascending=False)
        named = ", ".join(f"{FACTOR_NAMES[str(f)]} {100 * s:.0f} %" for f, s in top.items() if s >= 0.1)
        parts.append(f"Of the rate they lost: {named} (exact Shapley shares).")
    return parts


def _births(found: Findings, evidence: Evidence) -> list[str]:
    """How many dead units were born dead, and why."""
    born = found.units[found.units["dead"] & found.units["born"]]
    if born.empty:
        return []
    known_start = born["first"].mask(born["rate_then"].notna(), 0)  # otherwise only censuses show it
    firsts = known_start if known_start.eq(0).all() else born["first"]
    text = f"{of_the_dead(found.dead, _when(found))}, {len(born):,} {'was' if len(born) == 1 else 'were'} "
    text += birth_words(firsts.to_numpy(), int(found.units["first"].min()))
    closed = born[~opens_at_birth(born, found)]  # in training too
    medians = closed[list(BIRTH)].median()
    if medians.notna().any():
        shown = [f"{name} {medians[part]:+.1f}" for part, name in PART_NAMES.items()]
        if closed["birth_constant"].fillna(0).ne(0).any():
            shown.insert(-1, f"a constant of the code {closed['birth_constant'].median():+.1f}")
        text += f" (medians, in deviations of their pre-activation: {', '.join(shown)})"
    reasons = birth_reasons(born, found, evidence)
    if reasons.empty:
        return [text + "."]
    counts = reasons.value_counts()
    words = "; ".join(f"{number:,} {BIRTH_REASONS[str(why)]}" for why, number in counts.items())
    if len(reasons) < len(born):
        words += f"; of {len(born) - len(reasons):,} it is not known why"
    return [f"{text}: {words}."]
