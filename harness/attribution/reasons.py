"""The reason for a cause in words: the event behind it, or what the evidence shows of a lasting one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from harness.attribution.baseline import known_median
from harness.attribution.birth_causes import (
    LARGE,
    are_mostly_flat,
    are_tiny_or_alike,
    largest_gain,
    odd_input,
)
from harness.attribution.causes import BELOW_HE, SYMPTOMS, Cause
from harness.attribution.dead_units import (
    are_outputs,
    is_on_stream_alone,
    is_only_evaluated,
    opens_with_first_buffers,
    runs_otherwise,
)
from harness.attribution.drifts import changed_words
from harness.attribution.event import EPISODE, Event
from harness.attribution.evidence import Evidence
from harness.attribution.findings import Findings
from harness.attribution.killing_events import are_followed
from harness.attribution.lasting_causes import (
    LARGE_OUTPUTS,
    MUCH_MOMENTUM,
    ODD_INPUTS,
    ORDERED,
    PENALTY,
    SWOLLEN,
    VERY_LONG_STEP,
    behind_idle_norms,
    early_step,
    first_of,
    grown_inputs,
    growth_of_inputs,
    has_far_targets,
    is_broken_from_start,
    last_steps,
    odd_steps,
    order_of_inputs,
)
from harness.attribution.loss_rises import CALM
from harness.attribution.step_text import moved
from harness.formats import place_words

FAR_BELOW_HE = 0.3  # deviation of the weights over He's below which they are unusually small
HARDLY_ANY = 1e-3  # share of the gradient's power


def reason(cause: Cause, found: Findings, evidence: Evidence) -> str:
    """The reason for a cause, to be appended to its name; "" if there is none."""
    if cause.chance:
        return f", by chance: {_by_chance(evidence)}"
    if cause.events:
        seen = f"; {_forward(found, evidence)}" if _is_seen_again(cause) else ""
        return f"; {_dated(cause.events[0], found)}{seen}"
    why = REASONS.get(cause.label)
    text = "" if why is None else why(found, evidence)
    return f"; {text}" if text else ""


def _is_seen_again(cause: Cause) -> bool:
    """Whether passes through the first network show that its forward changed, which an event suggests."""
    return cause.label == "forward" and cause.events[0].column in SYMPTOMS


def _by_chance(evidence: Evidence) -> str:
    gain = known_median(evidence.layers["gain"])
    if gain < FAR_BELOW_HE:
        return f"the weights are at {gain:.2g}× He's scale, so that usual biases outweigh them"
    usual = "weights and biases are as usual ones are drawn"
    return f"{usual}; the weights are at {gain:.2g}× He's scale" if gain < BELOW_HE else usual


def _dated(event: Event, found: Findings) -> str:
    """An event, and how many deaths followed."""
    after, when = len(found.deaths_from(event)), len(found.deaths)
    alive = ", of units that lived before it" if event.column == "written_norm" else ""
    dated = f"; {after:,} of {when:,} dated deaths came at or after it{alive}" if when else ""
    if not after and found.diverged_at is not None and found.diverged_at >= event.step:
        later = found.diverged_at - event.step
        dated = f"; the training diverged {later:,} step{'s' * (later != 1)} later" if later else ""
    return f"{event.text}{dated}"


# --- lasting causes ---------------------------------------------------------------------------------


def _input_shift(found: Findings, evidence: Evidence) -> str:
    if (times := growth_of_inputs(evidence.steps)) > SWOLLEN:
        return f"they grow all the time, to {times:.3g}× their first size"
    order = order_of_inputs(evidence.steps)
    if order > ORDERED:
        mean = evidence.steps["input_mean"]
        if abs(mean.corr(evidence.steps["step"])) > ORDERED:
            start, end = known_median(mean.head(EPISODE)), known_median(mean.tail(EPISODE))
            return f"they drift: their mean goes from {start:.3g} to {end:.3g} in the course of the training"
        return (
            f"successive batches resemble each other (their means correlate by {order:.2f}): the inputs come "
            "in an order, by class, by source or in time, and are not shuffled"
        )
    if is_on_stream_alone(found):
        return "held-out inputs still open most of these units: the training's have become others, or fewer"
    return "they drifted: no single step stands out"


def _step_size(found: Findings, evidence: Evidence) -> str:
    if not len(evidence.steps):
        return ""
    text = f"{_before_deaths(found)}; {moved(found, evidence)}"
    if evidence.steps.attrs.get("uncleared"):
        text += "; gradients are added to those of the steps before, as nothing clears them"
    momentum = first_of(evidence.steps, "momentum")
    if not MUCH_MOMENTUM <= momentum < 1:
        return text
    return f"{text}; with a momentum of {momentum:g}, a gradient goes {1 / (1 - momentum):.0f} times as far"


def _bad_batch(found: Findings, evidence: Evidence) -> str:
    odd = odd_steps(evidence.steps)
    return (
        f"in {len(odd):,} of {len(evidence.steps):,} steps, first in step {int(odd[0]):,}, the "
        f"inputs' size was over {ODD_INPUTS}× their usual one"
    )


def _unbounded_loss(found: Findings, evidence: Evidence) -> str:
    last = evidence.steps["loss"][np.isfinite(evidence.steps["loss"])].iloc[-1]
    return (
        f"at last it was {last:.3g}. A cross entropy, or a distance to targets, cannot fall below 0; "
        "other losses may: check whether it expects probabilities or their logarithms, and its signs"
    )


def _norm_stats(found: Findings, evidence: Evidence) -> str:
    if are_mostly_flat(found.units[found.units["dead"]], evidence.layers):
        nothing = "it leaves nothing of these units, which are the same on all inputs"
        return f"{nothing} (a norm of one value, or a gain of 0, say)"
    if len(idle := behind_idle_norms(evidence.layers)):
        layer, rms = idle[["layer", "input_rms"]].iloc[0]
        return f"what a norm hands to {place_words(str(layer))} has an rms of {rms:.3g}"
    if not is_only_evaluated(found.units).any():
        return ""
    return "training uses the statistics of each batch, evaluation those of the norm, which do not fit"


def _input_offset(found: Findings, evidence: Evidence) -> str:
    layer = odd_input(evidence.layers)
    if layer is None:
        return f"rms of the model's first inputs {first_of(evidence.steps, 'input_rms'):.3g}"
    if layer["input_rms"] == 0:
        return f"{_handed(layer)} are all 0"
    share = layer["off_centre"]
    power = f", their mean makes {100 * share:.0f} % of their power" if np.isfinite(share) else ""
    return f"rms of {_handed(layer)} {layer['input_rms']:.3g}{power}"


def _weight_init(found: Findings, evidence: Evidence) -> str:
    z, gain = evidence.layers["weight_z"].min(), largest_gain(evidence.layers)
    large = first_of(evidence.steps, "output_rms")
    if not gain > LARGE and large > LARGE_OUTPUTS:
        which = "weights are too large" if np.isnan(z) else "those of the output layer are too large"
        return f"the first outputs have an rms of {large:.3g}, so {which}"
    if is_broken_from_start(evidence.steps, found.diverged_at):
        how = "the parameters are not finite, or far too large"
        return f"{_first_value(evidence)} was not finite, though the inputs were: {how}"
    if np.isnan(z):
        return "how the weights were drawn is not known"
    if gain <= LARGE and are_tiny_or_alike(evidence.layers):
        deviation = known_median(evidence.layers["gain"])
        return f"the weights of most layers deviate by {deviation:.2g}× He's scale: units hardly differ"
    if np.isinf(z):
        return "all weights of a layer are the same, and below 0"
    return f"lowest layer mean of weights {z:+.1f} standard errors, largest gain {gain:.2g}× He"


def _decay(found: Findings, evidence: Evidence) -> str:
    if evidence.steps.empty:
        return ""
    growth, decay = known_median(evidence.layers["growth"]), evidence.steps["weight_decay"].max()
    return f"weight decay {decay:.3g}, layers' ‖W‖ at {growth:.2g}× their start (median)"


def _bias_lr(found: Findings, evidence: Evidence) -> str:
    if evidence.steps.empty:
        return ""
    lr, bias = known_median(evidence.steps["lr"]), known_median(evidence.steps["lr_bias"])
    return f"learning rate {bias:.3g} for biases, {lr:.3g} for weights"


def _target_scale(found: Findings, evidence: Evidence) -> str:
    if not has_far_targets(evidence):
        steep, loss = (first_of(evidence.steps, name) for name in ("output_grad_norm", "loss"))
        first = "" if np.isnan(loss) else f"the first loss was {loss:.3g}; "
        return f"{first}the norm of the loss's first gradient at the outputs was {steep:.3g}"
    error, size = evidence.loss["target_error"], evidence.loss["output_rms"]
    return f"in the first step the outputs, of rms {size:.2g}, missed them by an rms of {error:.3g}"


def _loss_penalty(found: Findings, evidence: Evidence) -> str:
    if not max(evidence.loss.get(f"{when}penalty_share", 0.0) for when in ("", "late_")) >= PENALTY:
        return f"{penalty(evidence)}; since then it is their own bias that closed units, so that it grew"
    late = last_steps(evidence.steps, found.deaths, found.diverged_at)
    far = early_step(evidence.steps) >= VERY_LONG_STEP or late >= CALM
    usual = "" if far else ", which is not unusually far"
    return f"{penalty(evidence)}; {moved(found, evidence)}{usual}"


def _labels(found: Findings, evidence: Evidence) -> str:
    return (
        f"{_first_value(evidence)} was not finite, though the outputs were: a target is not, or the loss "
        "divides by 0, or takes its logarithm"
    )


def _first_value(evidence: Evidence) -> str:
    """What showed at once that a training was broken."""
    return "the first loss" if evidence.has_loss else "the first update"


def _constant(found: Findings, evidence: Evidence) -> str:
    count = int(are_outputs(found.units[found.units["dead"]], evidence).sum())
    cut = "are outputs of the model, which end in a ReLU: it gives nothing below 0, and no gradient at 0"
    return f"{count:,} of the dead units {cut}" if count else ""


def _forward(found: Findings, evidence: Evidence) -> str:
    dead = found.units[found.units["dead"]]
    closed, opened = (int(ask(dead).sum()) for ask in (runs_otherwise, opens_with_first_buffers))
    changes = evidence.steps.attrs.get("untrained", {})
    most = sorted(changes, key=lambda name: -len(changes[name]["windows"]))[:2]
    parts = [changed_words(name, changes[name]) for name in most]
    if closed:
        text = f"with its first parameters, the network as it runs now closes {closed:,} of the {len(dead):,}"
        parts.insert(0, f"{text} dead units, which were open at first")
    elif evidence.has_other_forward:
        parts.insert(0, "run again, the network as it is now does not give the outputs of the first forward")
    if opened:
        parts.insert(0, f"with the first buffers, {opened:,} of the {len(dead):,} dead units open now")
    if grown := grown_inputs(evidence):
        parts.insert(0, grown)
    return "; ".join(parts)


#: Label of a cause that was present from the start → its reason.
REASONS: dict[str, Callable[[Findings, Evidence], str]] = {
    "input_shift": _input_shift,
    "step_size": _step_size,
    "bad_batch": _bad_batch,
    "unbounded_loss": _unbounded_loss,
    "norm_stats": _norm_stats,
    "input_offset": _input_offset,
    "weight_init": _weight_init,
    "decay": _decay,
    "bias_lr": _bias_lr,
    "target_scale": _target_scale,
    "loss_penalty": _loss_penalty,
    "forward": _forward,
    "constant": _constant,
    "labels": _labels,
}


# --- parts ------------------------------------------------------------------------------------------


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
    calm = "it recurs" if event.again else f"after steps of over {100 * CALM:.0f} % of ‖θ‖"
    why = "a symptom" if inner else calm
    after = len(found.deaths_from(event))
    return f"{event.text} ({why}; {after:,} of {deaths:,} dated deaths came at or after it)"


def penalty(evidence: Evidence) -> str:
    """How much of the first gradient bypassed the outputs."""
    share = evidence.loss.get("penalty_share", float("nan"))
    if np.isnan(share):
        return (
            "a part of the loss does not go through the final outputs; its share of the gradient is not known"
        )
    late = evidence.loss.get("late_penalty_share", float("nan"))
    grown = f"; of a late step's, {100 * late:.3g} %" if late > max(2 * share, PENALTY) else ""
    if share < HARDLY_ANY:
        return f"hardly any of the first gradient's power came past the final outputs{grown}"
    down = evidence.loss.get("penalty_down", float("nan"))
    pull = "" if np.isnan(down) else f", {100 * down:.3g} % of its pull on the biases is downward"
    text = f"{100 * share:.3g} % of the first gradient's power did not come through the final outputs{pull}"
    return text + grown


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
