"""The cause of a diagnosis in words: its name, its reason, and what one run cannot tell from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from harness.attribution.birth_causes import LARGE, are_tiny_or_alike, odd_input
from harness.attribution.causes import (
    BELOW_HE,
    MEANING,
    ODD_INPUTS,
    VERY_LONG_STEP,
    Cause,
    are_followed,
    do_inputs_differ,
    early_step,
    informative,
    is_only_evaluated,
    longest_step,
    odd_steps,
    opens_in_training,
)
from harness.attribution.events import CALM, LONG_STEP, Event
from harness.attribution.evidence import Evidence
from harness.attribution.findings import LEAST_DEAD, Findings
from harness.formats import place_words

#: What one run cannot distinguish.
INDISTINGUISHABLE = {
    "labels": "labels that are wrong, and a task that changed on purpose",
    "input_offset": "off-centre inputs and a learning rate that is too high for them: they multiply",
    "target_scale": "large targets and a learning rate that is too high for them: they multiply",
    "loss_penalty": "the penalty itself, and a task that needs no more units",
}


def cause_text(cause: Cause, found: Findings, units: pd.DataFrame, evidence: Evidence) -> str:
    """The sentence of a diagnosis that names the cause; arguments as for `diagnosis_text`."""
    if cause.label == "none":
        return " ".join(no_cause(found))
    whose = _whose(cause, found)
    if cause.label == "unknown":
        return f"Cause{whose}: unknown{_excluded(cause, found, evidence)}."
    reason = _reason(cause, units, found, evidence)
    return f"Cause{whose}: {cause.label} ({MEANING[cause.label]}){reason}."


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


def _reason(cause: Cause, units: pd.DataFrame, found: Findings, evidence: Evidence) -> str:
    name, causal = cause.label, cause.events
    first = odd_input(evidence.layers)
    if cause.chance:
        gain, usual = (
            evidence.layers["gain"].median(),
            ", by chance: weights and biases are as usual ones are drawn",
        )
        return f"{usual}; the weights are at {gain:.2g}× He's scale" if gain < BELOW_HE else usual
    if causal:
        event = causal[0]
        after, when = len(found.deaths_from(event)), len(found.deaths)
        alive = ", of units that lived before it" if event.column == "written_norm" else ""
        dated = f"; {after:,} of {when:,} dated deaths came at or after it{alive}" if when else ""
        if not after and found.diverged_at is not None and found.diverged_at >= event.step:
            later = found.diverged_at - event.step
            dated = f"; the training diverged {later:,} step{'s' * (later != 1)} later" if later else ""
        return f"; {event.text}{dated}"
    if name == "input_shift":
        return "; they drifted: no single step stands out"
    if name == "step_size" and len(evidence.steps):
        return f"; {_before_deaths(found)}; {_moved(found, evidence)}"
    if name == "bad_batch":
        odd = odd_steps(evidence.steps)
        return (
            f"; in {len(odd):,} of {len(evidence.steps):,} steps, first in step {int(odd[0]):,}, the "
            f"inputs' size was over {ODD_INPUTS}× their usual one"
        )
    if name == "unbounded_loss":
        last = evidence.steps["loss"][np.isfinite(evidence.steps["loss"])].iloc[-1]
        return (
            f"; at last it was {last:.3g}. A cross entropy, or a distance to targets, cannot fall below 0; "
            "other losses may: check whether it expects probabilities or their logarithms, and its signs"
        )
    if name == "norm_stats" and bool(is_only_evaluated(found.units).any()):
        return "; training uses the statistics of each batch, evaluation those of the norm, which do not fit"
    if name == "input_offset" and first is not None and first["input_rms"] == 0:
        return f"; {_handed(first)} are all 0"
    if name == "input_offset" and first is not None:
        share = first["off_centre"]
        power = f", their mean makes {100 * share:.0f} % of their power" if np.isfinite(share) else ""
        return f"; rms of {_handed(first)} {first['input_rms']:.3g}{power}"
    if name == "weight_init":
        z, gain = evidence.layers["weight_z"].min(), evidence.layers["gain"].max()
        if np.isnan(z):
            return "; how the weights were drawn is not known"
        if gain <= LARGE and are_tiny_or_alike(evidence.layers):
            middle = evidence.layers["gain"].median()
            return f"; the weights of most layers deviate by {middle:.2g}× He's scale: units hardly differ"
        return f"; lowest layer mean of weights {z:+.1f} standard errors, largest gain {gain:.2g}× He"
    if name == "decay" and len(evidence.steps):
        growth, decay = evidence.layers["growth"].median(), evidence.steps["weight_decay"].max()
        return f"; weight decay {decay:.3g}, layers' ‖W‖ at {growth:.2g}× their start (median)"
    if name == "bias_lr" and len(evidence.steps):
        lr, bias = evidence.steps["lr"].median(), evidence.steps["lr_bias"].median()
        return f"; learning rate {bias:.3g} for biases, {lr:.3g} for weights"
    if name == "target_scale":
        error, size = evidence.loss["target_error"], evidence.loss["output_rms"]
        return f"; in the first step the outputs, of rms {size:.2g}, missed them by an rms of {error:.3g}"
    if name == "loss_penalty":
        usual = "" if early_step(evidence.steps) >= VERY_LONG_STEP else ", which is not unusually far"
        return f"; {_penalty(evidence)}; {_moved(found, evidence)}{usual}"
    return ""


def _before_deaths(found: Findings) -> str:
    """The event before most of the deaths, though it did not cause them."""
    deaths = len(found.deaths)
    after = [(event, found.deaths_from(event).to_numpy(float)) for event in found.events]
    before = [e for e, late in after if 2 * len(late) >= max(1, deaths) and are_followed(e, late)]
    if not deaths:
        return "no event stands out"
    if not before:
        some = any(len(found.deaths_from(event)) for event in found.events)
        return f"no event stands before {'most of ' if some else ''}the deaths"
    inner = [event for event in before if event.inner]
    event = (inner or before)[0]
    why = "a symptom" if inner else f"after steps of over {100 * CALM:.0f} % of ‖θ‖"
    after = len(found.deaths_from(event))
    return f"{event.text} ({why}; {after:,} of {deaths:,} dated deaths came at or after it)"


def _excluded(cause: Cause, found: Findings, evidence: Evidence) -> str:
    """What an unknown cause is not, and what it may be."""
    if cause.events:
        return _reason(cause, found.units, found, evidence)
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
    half = max(1, len(found.deaths)) / 2
    sudden = next((event for event in found.events if len(found.deaths_from(event)) >= half), None)
    if sudden is None:
        excluded.append("anything sudden")
    if longest_step(evidence.steps, found.deaths) < LONG_STEP / 2:
        excluded.append(f"long steps ({_moved(found, evidence)})")
    possible = [] if sudden is None else [f"what came before most of the deaths ({sudden.text})"]
    if not longest_step(evidence.steps, found.deaths) < LONG_STEP / 2:
        possible.append(f"steps that were too long ({_moved(found, evidence)})")
    if evidence.loss.get("penalty"):
        possible.append(f"a penalty in the loss ({_penalty(evidence)})")
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


def _moved(found: Findings, evidence: Evidence) -> str:
    ratio, longest = early_step(evidence.steps), longest_step(evidence.steps, found.deaths)
    if np.isnan(ratio):
        return "how far early steps went is not known"
    if np.isinf(ratio):
        return "early steps made parameters infinite"
    if np.isinf(longest):
        return f"an early step moved {100 * ratio:.3g} % of ‖θ‖ (median), the longest not finite"
    if longest > 3 * ratio:
        return f"an early step moved {_share(ratio)} of ‖θ‖ (median), the longest {_share(longest)}"
    return f"an early step moved {_share(ratio)} of ‖θ‖ (median)"


def _share(ratio: float) -> str:
    """A share of ‖θ‖, with two digits below 100 %."""
    return f"{100 * ratio:.{2 if ratio < 0.995 else 3}g} %"


def _penalty(evidence: Evidence) -> str:
    share = evidence.loss.get("penalty_share", float("nan"))
    if np.isnan(share):
        return (
            "a part of the loss does not go through the final outputs; its share of the gradient is not known"
        )
    down = evidence.loss.get("penalty_down", float("nan"))
    pull = "" if np.isnan(down) else f", {100 * down:.3g} % of its pull on the biases is downward"
    return f"{100 * share:.3g} % of the first gradient's power did not come through the final outputs{pull}"


def _handed(first: pd.Series) -> str:
    """The tensor described by a layer's input statistics."""
    layer = first.get("layer")
    named = (
        f" ({place_words(layer)}, before {place_words(first['site'])})"
        if isinstance(layer, str) and layer
        else ""
    )
    source = first.get("source")
    if source == "norm":
        return f"what a norm hands to the first layer{named}"
    if source == "inputs, joined":
        return f"what layers hand on{named}, with inputs joined to it,"
    if source in ("layers", "inputs, through layers"):
        return f"what earlier layers hand to the first layer with an activation{named}"
    return f"the model's inputs, as the first layer gets them{named},"


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
        if evidence.loss.get("penalty"):
            doubts.append(f"step size and a penalty in the loss ({_penalty(evidence)})")
    if name in ("step_size", "labels") and len(evidence.steps) and evidence.steps["loss"].isna().all():
        doubts.append("labels (no loss was given: recorder.step(loss=loss))")
    return doubts
