"""What to try first against the cause of a run: one sentence, not a promise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from harness.attribution.baseline import known_median
from harness.attribution.birth_causes import (
    LARGE,
    are_mostly_above,
    are_mostly_flat,
    is_empty,
    largest_gain,
    odd_input,
)
from harness.attribution.causes import Cause
from harness.attribution.dead_units import are_outputs
from harness.attribution.event import INPUTS, UNTRAINED
from harness.attribution.evidence import Evidence
from harness.attribution.findings import Findings
from harness.attribution.lasting_causes import (
    LARGE_OUTPUTS,
    MUCH_MOMENTUM,
    ORDERED,
    first_of,
    has_far_targets,
    order_of_inputs,
)
from harness.attribution.step_series import UNBOUNDED

SCHEDULED = 1.5  # times its first value that a learning rate reaches under a schedule
DEEP, NARROW = 8, 8  # layers, and units of each, from which chance closes whole layers
#: Label of a cause → what to try first. Unknown causes have no entry.
NEXT_STEP = {
    "bias_init": "Draw the biases at 0 or above.",
    "weight_init": "Draw the weights around 0, at He's scale (torch.nn.init.kaiming_normal_); if they were "
    "trained before, redraw only those of dead units.",
    "input_offset": "Standardise the inputs: mean 0 and deviation 1 on the training set, without values "
    "that stand for padding or for what is missing.",
    "input_shift": "Find what feeds the model other inputs from then on, or standardise them.",
    "bad_batch": "Look at that batch, inputs and targets; clip the gradient's norm, so that one can do less.",
    "step_size": "Lower the learning rate, warm it up, and clip the gradient's norm.",
    "labels": "Hold the labels of the batches before and after that step against each other, and what "
    "the loss makes of them.",
    "decay": "Lower the weight decay, to a tenth at first.",
    "bias_lr": "Give the biases the learning rate of the weights.",
    "norm_stats": "Hold the norms' running statistics against those of a training batch.",
    "constant": "Look for an offset or a threshold in the model's own code before the activation.",
    "surgery": "Find what writes into the parameters at that step.",
    "forward": "Find what changes that setting or buffer, and whether it should.",
    "unbounded_loss": "Check what the loss expects of its inputs, and its signs; give it a lower bound.",
    "loss_penalty": "Lower the weight of the penalty, to a hundredth at first.",
    "target_scale": "Standardise the targets, or scale the outputs to them; if they are classes, average the "
    "loss over the inputs.",
}


def next_step(cause: Cause, found: Findings, evidence: Evidence) -> str:
    """What to try first, as far as the evidence says; "" if the cause is unknown."""
    of_this = OF_EVIDENCE.get(cause.label)
    special = of_this(cause, found, evidence) if of_this else ""
    return special or NEXT_STEP.get(cause.label, "")


def _bias_init(cause: Cause, found: Findings, evidence: Evidence) -> str:
    return "Draw the biases around 0." if are_mostly_above(found.units) else ""


def _step_size(cause: Cause, found: Findings, evidence: Evidence) -> str:
    lr, momentum = first_of(evidence.steps, "lr"), first_of(evidence.steps, "momentum")
    rates = evidence.steps["lr"]
    if (rates < 0).any():
        return f"Keep the learning rate above 0: at {rates.min():.3g} the training climbs."
    if evidence.steps.attrs.get("uncleared"):
        return "Clear the gradients in each step (optimizer.zero_grad()): they are those of all steps so far."
    if evidence.steps.attrs.get("maximize"):
        return "Leave out maximize=True, if the loss is to fall: the optimizer climbs it."
    if cause.events:
        event = cause.events[0]
        if event.column == "lr":
            return f"Let the learning rate, or the momentum, rise less from step {event.step:,} on."
        if event.column == "update_norm":
            return f"Find what begins to train at step {event.step:,}, or has another rate from then on."
        return f"Find what made step {event.step:,} longer than those before; clip the gradient's norm."
    if momentum >= MUCH_MOMENTUM:
        times = f"{1 / (1 - momentum):.0f} times as far" if momentum < 1 else "ever further"
        return f"Lower the momentum: at {momentum:.3g} a gradient takes the parameters {times}."
    if rates.max() > SCHEDULED * lr:
        return "Lower the learning rate to a tenth, at all times of its schedule; clip the gradient's norm."
    to = f", to {lr / 10:.2g} at first" if lr > 0 else ""
    return f"Lower the learning rate{to}; warm it up, and clip the gradient's norm."


def _surgery(cause: Cause, found: Findings, evidence: Evidence) -> str:
    if not cause.events or cause.events[0].column != UNTRAINED:
        return ""
    return "Find what replaces these parameters, or writes into them, and how the new ones are drawn."


def _constant(cause: Cause, found: Findings, evidence: Evidence) -> str:
    dead = found.units[found.units["dead"]]
    return "Leave out the last ReLU." if are_outputs(dead, evidence).mean() > 0.5 else ""


def _norm_stats(cause: Cause, found: Findings, evidence: Evidence) -> str:
    flat = are_mostly_flat(found.units[found.units["dead"]], evidence.layers)
    return "Leave out the norm that leaves nothing of these units, or norm over more values." if flat else ""


def _input_shift(cause: Cause, found: Findings, evidence: Evidence) -> str:
    ordered = not cause.events and order_of_inputs(evidence.steps) > ORDERED
    return "Shuffle the training data." if ordered else ""


def _input_offset(cause: Cause, found: Findings, evidence: Evidence) -> str:
    layer = odd_input(evidence.layers)
    rms = 1.0 if layer is None else float(layer["input_rms"])
    if np.isinf(rms):
        return "Find out which inputs are not finite."
    return "" if rms else "Find out why the inputs are all 0."


def _decay(cause: Cause, found: Findings, evidence: Evidence) -> str:
    below = (evidence.steps["weight_decay"] < 0).any()
    return "Make the weight decay positive: below 0 it makes parameters grow." if below else ""


def _weight_init(cause: Cause, found: Findings, evidence: Evidence) -> str:
    born = found.units[found.units["dead"] & found.units["born"]]
    if len(born) and is_empty(born, evidence.layers).mean() > 0.5:
        return "Find what makes all incoming weights of these units 0 (pruning, a mask), or draw them anew."
    sizes = evidence.layers["units"]
    if cause.chance and len(sizes) >= DEEP and known_median(sizes) <= NARROW:
        return "Make the layers wider, or let what is below 0 through (a leaky ReLU, skips)."
    if (deviation := _largest_deviation(evidence)) > LARGE_OUTPUTS and not cause.chance:
        return f"Draw the hidden weights smaller: at the start, pre-activations deviate by {deviation:.3g}."
    large = first_of(evidence.steps, "output_rms") > LARGE_OUTPUTS and not cause.chance
    usual = not largest_gain(evidence.layers) > LARGE
    return "Draw the weights of the output layer smaller." if large and usual else ""


def _bad_batch(cause: Cause, found: Findings, evidence: Evidence) -> str:
    if not any(event.column in INPUTS and event.ratio > UNBOUNDED for event in cause.events):
        return ""
    return "Find which inputs of that batch are not finite, and leave out steps whose loss is not."


def _labels(cause: Cause, found: Findings, evidence: Evidence) -> str:
    if cause.events:
        return ""
    return "Look for targets that are not finite, and for a division by 0 or a logarithm of 0 in the loss."


def _largest_deviation(evidence: Evidence) -> float:
    """The largest deviation of a site's pre-activations at the start; NaN if none is known."""
    sites = evidence.units.groupby("site")["spread"].median()
    return float(sites.max()) if len(sites) else float("nan")


def _forward(cause: Cause, found: Findings, evidence: Evidence) -> str:
    if any(event.column == UNTRAINED for event in cause.events) or evidence.steps.attrs.get("untrained"):
        return ""
    return "Find what the forward does otherwise than at first: a flag, a branch, or its mode."


def _target_scale(cause: Cause, found: Findings, evidence: Evidence) -> str:
    if has_far_targets(evidence):
        return ""
    steep = first_of(evidence.steps, "output_grad_norm")
    times = f" to 1/{steep:,.0f} at first" if 1 < steep < np.inf else ""
    return f"Scale the loss down{times}, or lower the learning rate as much."


#: Label of a cause → what to try if the evidence says more than the label; "" if it does not.
OF_EVIDENCE: dict[str, Callable[[Cause, Findings, Evidence], str]] = {
    "bias_init": _bias_init,
    "step_size": _step_size,
    "constant": _constant,
    "surgery": _surgery,
    "norm_stats": _norm_stats,
    "input_shift": _input_shift,
    "input_offset": _input_offset,
    "decay": _decay,
    "weight_init": _weight_init,
    "labels": _labels,
    "bad_batch": _bad_batch,
    "forward": _forward,
    "target_scale": _target_scale,
}
