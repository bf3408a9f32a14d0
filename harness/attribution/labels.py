"""The causes by name, and what each means."""

from __future__ import annotations

#: What each label means.
MEANING = {
    "none": "nothing is wrong",
    "bias_init": "the biases were too low from the start",
    "weight_init": "the weights, as drawn or as an earlier training left them, kept units closed",
    "input_offset": "the inputs are too large, too far off centre, or hardly vary",
    "input_shift": "the inputs moved and stayed there",
    "bad_batch": "a bad batch, or several",
    "step_size": "steps that were too long",
    "labels": "the labels, or the loss itself, changed",
    "decay": "weight decay",
    "bias_lr": "the learning rate of the biases",
    "norm_stats": "the statistics of a norm, as they run or as they are taken",
    "constant": "a constant of the model's own code behind a layer: an offset or a threshold, no parameter",
    "surgery": "somebody wrote into the parameters",
    "forward": "what the forward does changed: a setting, a buffer, the mode, or a branch of its code",
    "unbounded_loss": "the loss falls far below 0 and keeps falling, as one without a lower bound does",
    "loss_penalty": "a part of the loss that acts on hidden layers or weights, past the final outputs",
    "target_scale": "targets that are far larger than the outputs, or a loss as steep as that",
    "unknown": "none of the causes that are known here",
}
LABELS = tuple(MEANING)
