"""Dated events: what left its own past first, and when.

Inside one step the causal order is: what others wrote into the parameters, inputs, loss, gradient, learning
rate, update. The first column to leave its past names the event; what follows within ten steps is the same
story.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

PAST = 50  # steps whose median is a column's past
LEAST = 8  # steps without which there is no past
STORY = 10  # steps within which events are one story
DEVIATIONS = 6.0  # median absolute deviations (as of a normal law) that are more than noise
CALM = 0.05  # ‖Δθ‖ / ‖θ‖ above which training was never calm
WRITTEN = 0.02  # ‖written‖ / ‖θ‖ that is an intervention
MAD = 1.4826  # deviations of a normal law in its median absolute deviation
UNBOUNDED = 1e300  # ratio from which it is that of something that was not finite
BLOCK = 1 << 14  # steps whose pasts are laid out at a time
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
        steps: step, input_mean, input_rms, written_norm, loss, grad_norm, update_norm, weight_norm, lr,
            weight_decay; NaN where something was not observed, infinite where it was not finite.
    """
    if len(steps) < 2:
        return []
    left = {name: _left(steps[name].to_numpy(float), name) for name in RATIOS}
    left["input_mean"] = _shifted(steps["input_mean"].to_numpy(float), steps["input_rms"].to_numpy(float))
    left["written_norm"] = _written(
        steps["written_norm"].to_numpy(float), steps["weight_norm"].to_numpy(float)
    )
    decay = steps["weight_decay"].to_numpy(float) if "weight_decay" in steps else np.zeros(len(steps))
    left["weight_decay"] = _raised(decay)
    found: list[Event] = []
    quiet_from = 0
    for t in np.flatnonzero(np.any([left[c] > 0 for c in ORDER], axis=0)):
        if t < quiet_from:
            continue
        quiet_from = t + STORY
        found.append(_named(steps, left, int(t), next(c for c in ORDER if left[c][t] > 0)))
    return found


ORDER = (
    "written_norm",
    "input_rms",
    "input_mean",
    "weight_decay",
    "lr",
    "loss",
    "grad_norm",
    "update_norm",
)


def calm_before(steps: pd.DataFrame, step: int) -> bool:
    """Whether ‖Δθ‖ / ‖θ‖ was small in the twenty steps before."""
    before = steps[(steps["step"] < step) & (steps["step"] >= step - 20)]
    if before.empty:
        return True
    ratio = (before["update_norm"] / before["weight_norm"]).to_numpy(float)
    ratio = ratio[np.isfinite(ratio)]
    return not len(ratio) or bool(np.median(ratio) < CALM)


def _named(steps: pd.DataFrame, left: dict[str, np.ndarray], t: int, column: str) -> Event:
    step = int(steps["step"].iloc[t])
    ratio = float(left[column][t])
    if column == "written_norm":
        share = f"by {100 * ratio:.3g} % of their norm" if np.isfinite(ratio) else "with what is not finite"
        text = f"step {step:,}: parameters were overwritten {share}, not by the optimizer"
        return Event(step, "surgery", column, ratio, text)
    if column in ("input_rms", "input_mean"):
        stays = _stays(steps, t)
        what = "size" if column == "input_rms" else "mean"
        by = f"{ratio:.3g}×" if column == "input_rms" else f"{ratio:.2g} of their rms"
        label = "input_shift" if stays else "bad_batch"
        how = "and stayed" if stays else "and came back: a bad batch"
        text = f"step {step:,}: the inputs' {what} moved by {by} {how}"
        if ratio > UNBOUNDED:
            text = f"step {step:,}: inputs were not finite"
        return Event(step, label, column, ratio, text)
    if column == "weight_decay":
        now = float(steps["weight_decay"].iloc[t])
        return Event(step, "decay", column, ratio, f"step {step:,}: weight decay rose to {now:.3g}")
    if column == "lr":
        text = f"step {step:,}: the learning rate rose to {ratio:.3g}× its past"
        return Event(step, "step_size", column, ratio, text)
    if column == "loss":
        return _of_loss(steps, left, t, ratio)
    if column == "grad_norm":
        if not _loss_known(steps, t):
            text = f"step {step:,}: the gradient rose to {ratio:.3g}× its past (no loss was given to compare)"
        else:
            text = f"step {step:,}: the gradient rose to {ratio:.3g}× its past, the loss before it did not"
        return Event(step, "step_size", column, ratio, text)
    text = f"step {step:,}: the update was {ratio:.3g}× its past, loss and gradient were not"
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
            f"step {step:,}: the loss rose to {ratio:.3g}× its past and stayed; what came before was as ever"
        )
        return Event(step, "labels", "loss", ratio, text)
    why = "after a longer update" if raised else "for a moment, and the gradient with it"
    text = f"step {step:,}: the loss rose to {ratio:.3g}× its past {why}"
    return Event(step, "step_size", "loss", ratio, text, inner=True)


def _loss_known(steps: pd.DataFrame, t: int) -> bool:
    return bool(np.isfinite(steps["loss"].to_numpy(float)[max(0, t - PAST) : t + 1]).any())


def _left(values: np.ndarray, name: str) -> np.ndarray:
    """By what ratio each value exceeds its past; 0 where that is no more than noise."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(values)
    least = np.log(RATIOS[name])
    found = np.zeros(len(values))
    for rows, past in _pasts(np.where(np.isfinite(logs), logs, np.nan)):
        middle, noise, highest = _middle(past), _noise(past), _highest(past)
        usual = np.fmin(DEVIATIONS * noise, highest - middle + least)  # a loss near 0 has heavy tails
        above = np.where(np.isneginf(logs[rows]), np.nan, logs[rows]) - middle
        far = (np.abs(above) if name == "input_rms" else above) > np.fmax(least, usual)
        found[rows] = np.where(far & _known(past), np.exp(np.minimum(above, 700.0)), 0.0)
    return found


def _shifted(mean: np.ndarray, rms: np.ndarray) -> np.ndarray:
    """By how many of the inputs' rms their mean has moved from its past; 0 where that is noise."""
    found = np.zeros(len(mean))
    sizes = _pasts(np.where(np.isfinite(rms), rms, np.nan))
    for (rows, past), (_, size) in zip(_pasts(np.where(np.isfinite(mean), mean, np.nan)), sizes, strict=True):
        scale = _middle(size)
        moved = np.abs(np.where(np.isfinite(mean[rows]), mean[rows], np.nan) - _middle(past))
        far = (scale > 0) & (moved > np.fmax(DEVIATIONS * _noise(past), 0.25 * scale))
        found[rows] = np.divide(moved, scale, out=np.zeros(len(moved)), where=far & _known(past))
    return found


def _written(written: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Share of the parameters' norm that others than the optimizer wrote; 0 where they always do as much."""
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.nan_to_num(written / weight, nan=0.0, posinf=np.inf)
    share[np.isposinf(written)] = np.inf  # the parameters' own norm is not finite then
    found = np.zeros(len(share))
    for rows, past in _pasts(share):
        usual = np.nan_to_num(_middle(past), nan=0.0, posinf=np.inf)
        found[rows] = np.where((share[rows] > WRITTEN) & (share[rows] > 5 * usual), share[rows], 0.0)
    return found


def _raised(values: np.ndarray) -> np.ndarray:
    """By what ratio a setting exceeds its past (infinite: it was 0); 0 where it does not."""
    found = np.zeros(len(values))
    for rows, past in _pasts(np.nan_to_num(values)):
        middle = _middle(past)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.nan_to_num(values[rows]) / middle
        far = np.nan_to_num(values[rows]) > RATIOS["lr"] * middle
        found[rows] = np.where(far & _known(past), ratio, 0.0)
    return found


def _pasts(values: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Block by block, which steps and the `PAST` values before each, (steps, PAST); NaN before the first."""
    padded = np.concatenate([np.full(PAST, np.nan), values[:-1]])
    windows = sliding_window_view(padded, PAST)
    for start in range(0, len(values), BLOCK):
        rows = slice(start, start + BLOCK)
        yield rows, windows[rows]


def _known(past: np.ndarray) -> np.ndarray:
    """Whether there is a past."""
    return (~np.isnan(past)).sum(axis=1) >= LEAST


def _middle(past: np.ndarray) -> np.ndarray:
    """Median of every row without its NaN; NaN for a row of nothing else."""
    ordered = np.sort(past, axis=1)  # NaN last
    n = (~np.isnan(past)).sum(axis=1)
    low, high = np.maximum(n - 1, 0) // 2, np.minimum(n // 2, PAST - 1)
    every = np.arange(len(past))
    return (ordered[every, low] + ordered[every, high]) / 2


def _noise(past: np.ndarray) -> np.ndarray:
    """Deviation of every row, by its median absolute deviation."""
    return MAD * _middle(np.abs(past - _middle(past)[:, None]))


def _highest(past: np.ndarray) -> np.ndarray:
    return np.fmax.reduce(past, axis=1)


def _stays(steps: pd.DataFrame, t: int) -> bool:
    """Whether the inputs are still away from their past in most of the steps of the story."""
    rms = steps["input_rms"].to_numpy(float)
    centre = steps["input_mean"].to_numpy(float)
    past = slice(max(0, t - PAST), t)
    usual, middle = np.nanmedian(rms[past]), np.nanmedian(centre[past])
    later = slice(t + 1, t + STORY)
    if not len(rms[later]):
        return False
    with np.errstate(divide="ignore", invalid="ignore"):  # inputs of nothing but zeros, or not finite
        resized = np.abs(np.log(rms[later] / usual)) > np.log(RATIOS["input_rms"])
    far = resized | (np.abs(centre[later] - middle) > 0.25 * usual)
    return bool(np.mean(far) > 0.5)
