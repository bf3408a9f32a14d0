"""Dated events: what left its own past first, and when.

Inside one step the causal order is: what others wrote into the parameters, inputs, loss, gradient, learning
rate, update. The first column to leave its past names the event; what follows within ten steps is the same
story.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

PAST = 50  # steps whose median is a column's past
LEAST = 8  # steps without which there is no past
STORY = 10  # steps within which events are one story
DEVIATIONS = 6.0  # median absolute deviations (as of a normal law) that are more than noise
CALM = 0.05  # ‖Δθ‖ / ‖θ‖ above which training was never calm
WRITTEN = 0.02  # ‖written‖ / ‖θ‖ that is an intervention
#: Least ratio to its past by which a column has left it.
RATIOS = {"loss": 1.5, "grad_norm": 2.5, "lr": 1.8, "update_norm": 3.0, "input_rms": 1.25}


class Event(NamedTuple):
    """Something that happened.

    Attributes:
        step: the optimizer step in which it showed.
        label: the cause that it would be.
        column: which scalar left its past first.
        ratio: to the median of its past (of the input's mean: the shift in units of the inputs' rms).
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
    """The stories of a training, in order of time.

    Args:
        steps: step, input_mean, input_rms, written_norm, loss, grad_norm, update_norm, weight_norm, lr; NaN
            where something was not observed.
    """
    if len(steps) < 2:
        return []
    left = {name: _left(steps[name].to_numpy(float), name) for name in RATIOS}
    left["input_mean"] = _shifted(steps)
    weight = steps["weight_norm"].to_numpy(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        written = np.nan_to_num(steps["written_norm"].to_numpy(float) / weight, nan=0.0, posinf=np.inf)
    usual = np.array([np.median(written[max(0, t - PAST) : t]) if t else 0.0 for t in range(len(written))])
    left["written_norm"] = np.where((written > WRITTEN) & (written > 5 * usual), written, 0.0)
    found: list[Event] = []
    quiet_from = 0
    for t in range(len(steps)):
        if t < quiet_from:
            continue
        column = next((c for c in ORDER if left[c][t] > 0), None)
        if column is None:
            continue
        event = _named(steps, left, t, column)
        quiet_from = t + STORY
        if event is not None:
            found.append(event)
    return found


ORDER = ("written_norm", "input_rms", "input_mean", "lr", "loss", "grad_norm", "update_norm")


def calm_before(steps: pd.DataFrame, step: int) -> bool:
    """Whether ‖Δθ‖ / ‖θ‖ was small in the twenty steps before."""
    before = steps[(steps["step"] < step) & (steps["step"] >= step - 20)]
    if before.empty:
        return True
    ratio = (before["update_norm"] / before["weight_norm"]).to_numpy(float)
    ratio = ratio[np.isfinite(ratio)]
    return not len(ratio) or bool(np.median(ratio) < CALM)


def _named(steps: pd.DataFrame, left: dict[str, np.ndarray], t: int, column: str) -> Event | None:
    step = int(steps["step"].iloc[t])
    ratio = float(left[column][t])
    if column == "written_norm":
        share = f"{100 * ratio:.2g} % of their norm"
        text = f"step {step:,}: parameters were overwritten by {share}, not by the optimizer"
        return Event(step, "surgery", column, ratio, text)
    if column in ("input_rms", "input_mean"):
        stays = _stays(left["input_rms"], left["input_mean"], steps, t)
        what = "size" if column == "input_rms" else "mean"
        by = f"{ratio:.2g}×" if column == "input_rms" else f"{ratio:.2g} of their rms"
        label = "input_shift" if stays else "bad_batch"
        how = "and stayed" if stays else "and came back: a bad batch"
        return Event(step, label, column, ratio, f"step {step:,}: the inputs' {what} moved by {by} {how}")
    if column == "lr":
        text = f"step {step:,}: the learning rate rose to {ratio:.2g}× its past"
        return Event(step, "step_size", column, ratio, text)
    if column == "loss":
        return _of_loss(steps, left, t, ratio)
    if column == "grad_norm":
        if not _loss_known(steps, t):
            text = f"step {step:,}: the gradient rose to {ratio:.2g}× its past (no loss was given to compare)"
        else:
            text = f"step {step:,}: the gradient rose to {ratio:.2g}× its past, the loss before it did not"
        return Event(step, "step_size", column, ratio, text)
    text = f"step {step:,}: the update was {ratio:.2g}× its past, loss and gradient were not"
    return Event(step, "step_size", column, ratio, text)


def _of_loss(steps: pd.DataFrame, left: dict[str, np.ndarray], t: int, ratio: float) -> Event:
    """A loss that leaves its past before anything else: other labels, unless the step before was too long."""
    step = int(steps["step"].iloc[t])
    loss = steps["loss"].to_numpy(float)
    past = np.median(loss[max(0, t - PAST) : t])
    after = loss[t : t + STORY]
    after = after[np.isfinite(after)]
    stays = len(after) >= 3 and float(np.median(after)) > 1.3 * past
    update = steps["update_norm"].to_numpy(float)
    before = update[max(0, t - PAST - 1) : max(0, t - 1)]
    raised = t >= 2 and len(before) >= LEAST and update[t - 1] > 1.5 * np.median(before)
    if stays and not raised:
        text = (
            f"step {step:,}: the loss rose to {ratio:.2g}× its past and stayed; what came before was as ever"
        )
        return Event(step, "labels", "loss", ratio, text)
    why = "after a longer update" if raised else "for a moment, and the gradient with it"
    text = f"step {step:,}: the loss rose to {ratio:.2g}× its past {why}"
    return Event(step, "step_size", "loss", ratio, text, inner=True)


def _loss_known(steps: pd.DataFrame, t: int) -> bool:
    return bool(np.isfinite(steps["loss"].to_numpy(float)[max(0, t - PAST) : t + 1]).any())


def _left(values: np.ndarray, name: str) -> np.ndarray:
    """By what ratio each value exceeds its past; 0 where that is no more than noise."""
    found = np.zeros(len(values))
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(values)
    least = np.log(RATIOS[name])
    for t in range(LEAST, len(values)):
        if not np.isfinite(logs[t]) and not (np.isposinf(values[t])):
            continue
        past = logs[max(0, t - PAST) : t]
        past = past[np.isfinite(past)]
        if len(past) < LEAST:
            continue
        middle = np.median(past)
        noise = 1.4826 * np.median(np.abs(past - middle))
        above = logs[t] - middle
        if name == "input_rms":
            above = abs(above)
        usual = min(DEVIATIONS * noise, np.max(past) - middle + least)  # a loss near 0 has heavy tails
        if above > max(least, usual):
            found[t] = np.exp(min(logs[t] - middle, 700.0))
    return found


def _shifted(steps: pd.DataFrame) -> np.ndarray:
    """By how many of the inputs' rms their mean has moved from its past; 0 where that is noise."""
    mean, rms = steps["input_mean"].to_numpy(float), steps["input_rms"].to_numpy(float)
    found = np.zeros(len(mean))
    for t in range(LEAST, len(mean)):
        past, size = mean[max(0, t - PAST) : t], rms[max(0, t - PAST) : t]
        past, size = past[np.isfinite(past)], size[np.isfinite(size)]
        if len(past) < LEAST or not np.isfinite(mean[t]) or not len(size):
            continue
        middle, scale = np.median(past), np.median(size)
        noise = 1.4826 * np.median(np.abs(past - middle))
        if scale > 0 and abs(mean[t] - middle) > max(DEVIATIONS * noise, 0.25 * scale):
            found[t] = abs(mean[t] - middle) / scale
    return found


def _stays(size: np.ndarray, mean: np.ndarray, steps: pd.DataFrame, t: int) -> bool:
    """Whether the inputs are still away from their past in most of the steps of the story."""
    rms = steps["input_rms"].to_numpy(float)
    centre = steps["input_mean"].to_numpy(float)
    past = slice(max(0, t - PAST), t)
    usual, middle = np.nanmedian(rms[past]), np.nanmedian(centre[past])
    later = slice(t + 1, t + STORY)
    if not len(rms[later]):
        return False
    far = (np.abs(np.log(rms[later] / usual)) > np.log(RATIOS["input_rms"])) | (
        np.abs(centre[later] - middle) > 0.25 * usual
    )
    return bool(np.mean(far) > 0.5)
