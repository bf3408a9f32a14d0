"""The cause of a diagnosis in words: its name, its reason, and what one run cannot tell from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from harness.attribution.baseline import known_median
from harness.attribution.birth_causes import LARGE_INPUTS, are_mostly_above, odd_input
from harness.attribution.causes import Cause
from harness.attribution.dead_units import do_inputs_differ, informative, opens_in_training
from harness.attribution.event import Event
from harness.attribution.evidence import Evidence
from harness.attribution.findings import LEAST_DEAD, Findings
from harness.attribution.labels import MEANING
from harness.attribution.last_window import closed_within
from harness.attribution.lasting_causes import longest_step, order_of_inputs
from harness.attribution.loss_rises import LONG_STEP
from harness.attribution.reasons import penalty, reason
from harness.attribution.step_text import moved
from harness.formats import place_words

#: What one run cannot distinguish.
INDISTINGUISHABLE = {
    "labels": "labels that are wrong, in one batch or from then on, and a task that changed on purpose",
    "input_offset": "off-centre inputs and a learning rate that is too high for them: they multiply",
    "target_scale": "large targets and a learning rate that is too high for them: they multiply",
    "loss_penalty": "the penalty itself, and a task that needs no more units",
}


def cause_text(cause: Cause, found: Findings, evidence: Evidence) -> str:
    """The sentence of a diagnosis that names the cause; arguments as for `diagnosis_text`."""
    if cause.label == "none":
        return " ".join(no_cause(found))
    whose = _whose(cause, found)
    if cause.label == "unknown":
        return f"Cause{whose}: unknown{_excluded(cause, found, evidence)}."
    why = reason(cause, found, evidence)
    return f"Cause{whose}: {cause.label} ({_meaning(cause, found)}){why}."


def _meaning(cause: Cause, found: Findings) -> str:
    """What a label means, here."""
    if cause.label == "bias_init" and are_mostly_above(found.units):
        return "the biases were too high from the start, for activations that are bounded above"
    return MEANING[cause.label]


def _whose(cause: Cause, found: Findings) -> str:
    """The sites to which a cause applies, if not to all."""
    if not cause.sites:
        return ""
    counts = found.units.groupby("site")["dead"].agg(["sum", "size"]).loc[list(cause.sites)]
    named = [
        f"{dead:,} of {size:,} at {place_words(str(site))}"
        for site, (dead, size) in counts.head(3).iterrows()
    ]
    more = f" and {len(counts) - 3} sites more" if len(counts) > 3 else ""
    return f" of the layers that are mostly dead ({', '.join(named)}{more})"


def no_cause(found: Findings) -> list[str]:
    """Why there is nothing to explain in the run as a whole."""
    dead = found.units[found.units["dead"]]
    too_few = too_few_inputs(found)
    if too_few and informative(dead).empty:
        return too_few
    if closed_within(found):
        return [*too_few, "No cause is given yet: so far, few units count as dead."]
    if dead.empty:
        whole = "" if found.starved.empty else " in the run as a whole"
        was = "is" if found.uncounted is None else "was"
        return [f"Nothing to explain{whole}: no unit {was} dead.", *_one_census(found)]
    later = int((~dead["born"]).sum())
    if found.dead / max(1, found.total) < LEAST_DEAD:
        few = "so few dead units need no cause of their own"
    elif later:
        few = f"what chance does needs no cause of its own, nor do as few as the {later:,} that died later"
    else:
        few = "what chance does needs no cause of its own"
    return [*too_few, f"Nothing to explain in the run as a whole: {few}."]


def too_few_inputs(found: Findings) -> list[str]:
    """Dead units seen on too few inputs to be judged."""
    dead = found.units[found.units["dead"]]
    few = dead.drop(informative(dead).index)
    if few.empty:
        return []
    n = f"n = {int(few['n'].max()):,}" + (" at most" if few["n"].nunique() > 1 else "")
    return [
        f"No cause is given for {len(few):,} dead units ({n}): n is too small; a unit that is silent on so "
        "few inputs may be alive."
    ]


def _one_census(found: Findings) -> list[str]:
    """What a single census over a whole training run cannot show; empty if there are more."""
    if found.evidence != "stream" or found.rows["step"].nunique() > 1 or found.at < 2:
        return []
    return [
        f"There is one census, over all steps up to {found.at:,}: a unit that opened early and died on the "
        "way counts as alive; a smaller census_every, or probe=, shows it."
    ]


def _excluded(cause: Cause, found: Findings, evidence: Evidence) -> str:
    """What an unknown cause is not, and what it may be."""
    if cause.events:
        return reason(cause, found, evidence)
    if found.diverged_at is not None and found.dead < LEAST_DEAD * found.total:
        return ": what made it diverge is not in the evidence"
    dead = informative(found.units[found.units["dead"]])
    dead = dead[dead["site"].isin(cause.sites)] if cause.sites else dead
    if do_inputs_differ(dead, found):
        which = "these" if opens_in_training(dead).all() else "most of these"
        return (
            f": the training's own inputs open {which} units, the held-out ones do not. Do the two differ, "
            "or is something done to one of them alone (scaling, augmentation)"
        )
    if len(dead) and dead["born"].mean() > 0.5:
        return f": most of them were dead from the start, and {_unread(dead[dead['born']], evidence)}"
    excluded = [
        "units that start closed",
        "large or off-centre inputs",
        "large initial weights",
        "weight decay",
    ]
    excluded += ["fast biases", "running statistics"]
    possible = _odd_model_inputs(evidence.steps)
    if possible:
        excluded.remove("large or off-centre inputs")
    half = max(1, len(found.deaths)) / 2
    sudden = next((event for event in found.events if len(found.deaths_from(event)) >= half), None)
    if sudden is None:
        excluded.append("anything sudden")
    possible += [] if sudden is None else [f"what came before most of the deaths ({sudden.text})"]
    if longest_step(evidence.steps, found.deaths) < LONG_STEP / 2:
        excluded.append(f"long steps ({moved(found, evidence)})")
    else:
        possible.append(f"steps that were too long ({moved(found, evidence)})")
    if evidence.loss.get("penalty"):
        possible.append(f"a penalty in the loss ({penalty(evidence)})")
    elif "penalty" in evidence.loss:
        excluded.append("a penalty beside the outputs")
    else:
        possible.append("a penalty in the loss (its graph was not seen: recorder.step(loss=loss))")
    if "target_error" in evidence.loss:
        excluded.append("the targets' scale")
    else:
        possible.append("the loss itself, or the scale of its targets")
    out = f". As far as the evidence goes, it is none of these: {', '.join(excluded)}"
    return f"{out}. Possible: {'; '.join(possible)}" if possible else out


def _odd_model_inputs(steps: pd.DataFrame) -> list[str]:
    """That the model's own inputs, whatever its first layers make of them, are large or off centre."""
    mean, rms = (known_median(steps[name]) for name in ("input_mean", "input_rms"))
    if not (rms > LARGE_INPUTS or mean**2 > rms**2 / 2):
        return []
    return [f"the model's inputs, which are large or off centre (mean {mean:.3g}, rms {rms:.3g})"]


def _unread(born: pd.DataFrame, evidence: Evidence) -> str:
    """Why the births of units indicate no cause."""
    if evidence.error:
        not_rerun = "the start could not be run again, so that " if evidence.layers.empty else ""
        return f"{not_rerun}nothing is known of their births ({evidence.error})"
    sites = born.loc[born["spread"].isna(), "site"].drop_duplicates().tolist()
    if sites:
        shown = ", ".join(sites[:3]) + (f" and {len(sites) - 3:,} more" if len(sites) > 3 else "")
        return f"the parameters that make the units of {shown} were not found in the model"
    return (
        "what closed them is neither a bias, nor a norm, nor weights that are known, nor the model's inputs"
    )


def doubts(name: str, causal: Sequence[Event], evidence: Evidence) -> list[str]:
    """What cannot be distinguished from a cause in one run."""
    first = odd_input(evidence.layers)
    doubts = [text for label, text in INDISTINGUISHABLE.items() if label == name]
    if name == "step_size" and not causal:
        own = first is not None and first.get("source", "inputs") in ("inputs", None)
        if own and first is not None and np.isfinite(first["off_centre"]) and first["off_centre"] > 0.2:
            share = 100 * first["off_centre"]
            doubts.append(f"step size and off-centre inputs (mean² is {share:.0f} % of the inputs' power)")
        doubts.append("step size and labels that were wrong from the start")
        order, known = order_of_inputs(evidence.steps), evidence.steps["input_mean"].notna().sum()
        if known and order > 3 / known**0.5:
            doubts.append(
                f"step size and inputs that are not shuffled (successive means correlate by {order:.2f})"
            )
        if evidence.loss.get("penalty"):
            doubts.append(f"step size and a penalty in the loss ({penalty(evidence)})")
    if name in ("step_size", "labels") and len(evidence.steps) and not evidence.has_loss:
        others = "labels, a penalty in the loss" if name == "step_size" else "the loss's own scale"
        doubts.append(f"{others} (no loss was given: recorder.step(loss=loss))")
    return doubts
