"""Dated events: what deviated from its baseline first, and when.

Inside one step the causal order is: what others wrote into the parameters, inputs, loss, gradient, learning
rate, update. The first column to deviate names the event; what follows within ten steps is the same episode.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from harness.attribution import baseline

EPISODE = 10  # steps within which events are one episode
CALM = 0.05  # ‖Δθ‖ / ‖θ‖ above which training was never calm
UNBOUNDED = 1e300  # ratio from which it is that of something that was not finite
#: Columns in their causal order inside a step.
ORDER = ("written_norm", "input_rms", "input_mean", "weight_decay", "lr", "loss", "grad_norm", "update_norm")


class Event(NamedTuple):
    """Something that happened.

    Attributes:
        step: the optimizer step in which it showed.
        label: the cause that it would be.
        column: which scalar deviated first.
        ratio: to its baseline (of the input's mean: the shift in units of the inputs' rms).
        text: in words.
        inner: whether the training itself brought it about, so that it is no cause but a symptom.
    """

    step: int
    label: str
    column: str
    ratio: float
    text: str
    inner: bool = False


def events(steps: pd.DataFrame) -> list[Event]:
    """The first event of every episode of a training, in order of time.

    Args:
        steps: step, input_mean, input_rms, written_norm, loss, grad_norm, update_norm, weight_norm, lr,
            weight_decay; NaN where something was not observed, infinite where it was not finite.
    """
    if len(steps) < 2:
        return []
    values = {str(name): column.to_numpy(float) for name, column in steps.items()}
    deviations = {name: baseline.ratio_deviation(values[name], name) for name in baseline.RATIOS}
    deviations["input_mean"] = baseline.mean_deviation(values["input_mean"], values["input_rms"])
    deviations["written_norm"] = baseline.written_share(values["written_norm"], values["weight_norm"])
    deviations["weight_decay"] = baseline.setting_deviation(values.get("weight_decay", np.zeros(len(steps))))
    first: list[Event] = []
    episode_end = 0
    for t in np.flatnonzero(np.any([deviations[c] > 0 for c in ORDER], axis=0)):
        if t >= episode_end:
            episode_end = t + EPISODE
            column = next(c for c in ORDER if deviations[c][t] > 0)
            first.append(_event(values, int(t), column, float(deviations[column][t])))
    return first


def calm_before(steps: pd.DataFrame, step: int, most: float = CALM) -> bool:
    """Whether ‖Δθ‖ / ‖θ‖ was small (below `most`) in the twenty steps before."""
    before = steps[(steps["step"] < step) & (steps["step"] >= step - 20)]
    ratio = (before["update_norm"] / before["weight_norm"]).to_numpy(float)
    ratio = ratio[np.isfinite(ratio)]
    return not len(ratio) or bool(np.median(ratio) < most)


def _event(values: dict[str, np.ndarray], t: int, column: str, ratio: float) -> Event:
    """The event that a deviation of a column at row t is."""
    step, inner = int(values["step"][t]), False
    rise = f"rose to {ratio:.3g}× its past"
    if column == "written_norm":
        share = f"by {100 * ratio:.3g} % of their norm" if np.isfinite(ratio) else "with what is not finite"
        label, text = "surgery", f"parameters were overwritten {share}, not by the optimizer"
    elif column in ("input_rms", "input_mean"):
        stays = _inputs_stay(values, t)
        label = "input_shift" if stays else "bad_batch"
        size = column == "input_rms"
        moved = f"size moved by {ratio:.3g}×" if size else f"mean moved by {ratio:.2g} of their rms"
        text = f"the inputs' {moved} {'and stayed' if stays else 'and came back: a bad batch'}"
        if ratio > UNBOUNDED:
            text = "inputs were not finite"
    elif column == "weight_decay":
        label, text = "decay", f"weight decay rose to {values[column][t]:.3g}"
    elif column == "loss":
        label, reason, inner = _loss_rise(values, t)
        text = f"the loss {rise} {reason}"
    elif column == "lr":
        label, text = "step_size", f"the learning rate {rise}"
    elif column == "grad_norm":
        known = np.isfinite(values["loss"][max(0, t - baseline.LENGTH) : t + 1]).any()
        compared = ", the loss before it did not" if known else " (no loss was given to compare)"
        label, text = "step_size", f"the gradient {rise}{compared}"
    else:
        label, text = "step_size", f"the update was {ratio:.3g}× its past, loss and gradient were not"
    written = column == "written_norm" and step > 1  # seen when the optimizer steps again
    when = f"between step {step - 1:,} and step {step:,}" if written else f"step {step:,}"
    return Event(step, label, column, ratio, f"{when}: {text}", inner)


def _loss_rise(values: dict[str, np.ndarray], t: int) -> tuple[str, str, bool]:
    """A loss that deviates before anything else: other labels, unless the step before was too long.

    Returns:
        Label, in what way it rose, and whether the training itself brought it about.
    """
    loss, update = values["loss"], values["update_norm"]
    usual = np.median(loss[max(0, t - baseline.LENGTH) : t])
    after = loss[t : t + EPISODE]
    after = after[np.isfinite(after)]
    stays = len(after) >= 3 and float(np.median(after)) > 1.3 * usual
    before = update[max(0, t - baseline.LENGTH - 1) : max(0, t - 1)]
    long_step = t >= 2 and len(before) >= baseline.SHORTEST and update[t - 1] > 1.5 * np.median(before)
    if stays and not long_step:
        return "labels", "and stayed; what came before was as ever", False
    how = "after a longer update" if long_step else "for a moment, and the gradient with it"
    return "step_size", how, True


def _inputs_stay(values: dict[str, np.ndarray], t: int) -> bool:
    """Whether the inputs are still far from their baseline in most of the steps of the episode."""
    rms, mean = values["input_rms"], values["input_mean"]
    before, later = slice(max(0, t - baseline.LENGTH), t), slice(t + 1, t + EPISODE)
    if not len(rms[later]):
        return False
    rms_baseline, mean_baseline = np.nanmedian(rms[before]), np.nanmedian(mean[before])
    with np.errstate(divide="ignore", invalid="ignore"):  # inputs of nothing but zeros, or not finite
        resized = np.abs(np.log(rms[later] / rms_baseline)) > np.log(baseline.RATIOS["input_rms"])
    far = resized | (np.abs(mean[later] - mean_baseline) > baseline.MEAN_SHIFT * rms_baseline)
    return bool(np.mean(far) > 0.5)
