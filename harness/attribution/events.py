"""Dated events: what deviated from its baseline first, and when.

Within one step the causal order is: writes into the parameters by others, inputs, loss, gradient, learning
rate, update. The first column to deviate names the event. Deviations that follow without a pause of ten steps
belong to the same episode, unless they come from outside (`OUTSIDE`) and the start of the episode did not.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.attribution import baseline
from harness.attribution.drifts import what_rose, with_drifts
from harness.attribution.event import EPISODE, INPUTS, ORDER, OUTSIDE, UNTRAINED, Event, with_cause
from harness.attribution.loss_rises import CALM, Rise, loss_rise, own_rise, with_strange
from harness.attribution.recurring_writes import as_event, recurring_writes
from harness.attribution.step_series import AS_EVER, UNBOUNDED, StepSeries

ODD = 10.0  # ratio from which inputs are no batch of a usual training, whatever follows
LASTING = 3  # steps within which a deviation that was there is no new event


def events(steps: pd.DataFrame) -> list[Event]:
    """The first event of every episode of a training run, in order of time.

    Args:
        steps: step, input_mean, input_rms, written_norm, loss, grad_norm, update_norm, weight_norm, lr,
            weight_decay, output_rms, output_grad_norm; NaN if something was not observed, infinite if it was
            not finite. Its attribute `loss` holds the facts of `LossPath.facts`.
    """
    if len(steps) < 2:
        return []
    series, facts = StepSeries(steps), steps.attrs.get("loss", {})
    deviations = _deviations(series)
    writes = deviations["written_norm"].copy()
    recurring = recurring_writes(writes)
    deviations["written_norm"][recurring] = 0.0
    first: list[Event] = []
    episode_end = 0
    for t in np.flatnonzero(np.any([deviations[c] > 0 for c in ORDER], axis=0)).tolist():
        column = next(c for c in ORDER if deviations[c][t] > 0)
        goes_on = t < episode_end and (column not in OUTSIDE or first[-1].column in OUTSIDE)
        goes_on |= bool(first) and bool((deviations[column][max(0, t - LASTING) : t] > 0).any())
        ratio = float(deviations[column][t])
        if column in INPUTS and ratio < ODD and not series.inputs_matter(t):
            continue
        if not goes_on:
            first.append(_event(series, t, column, ratio, facts.get("penalty") is True))
        if not goes_on or not first[-1].inner:  # a symptom may come just before a cause
            episode_end = t + EPISODE
    first = sorted([*first, *as_event(series["step"], writes, recurring)], key=lambda event: event.step)
    found = with_drifts(series, first, steps.attrs.get("untrained", {}), facts)
    return _with_other_mode(series, _with_other_optimizer(series, found))


def calm_before(steps: pd.DataFrame, step: int) -> bool:
    """Whether ‖Δθ‖ / ‖θ‖ was small (below `CALM`) in the twenty steps before."""
    before = steps[(steps["step"] < step) & (steps["step"] >= step - 20)]
    ratio = (before["update_norm"] / before["weight_norm"]).to_numpy(float)
    ratio = ratio[np.isfinite(ratio)]
    return not len(ratio) or bool(np.median(ratio) < CALM)


def _deviations(series: StepSeries) -> dict[str, np.ndarray]:
    """How far every column of `ORDER` deviates from its baseline, per step; 0 where it does not."""
    found = {name: baseline.ratio_deviation(series[name], name) for name in baseline.RATIOS}
    found["lr"] = baseline.ratio_deviation(series["reach"], "lr")
    found["loss"] = with_strange(series["loss"], found["loss"])
    found["input_mean"] = baseline.mean_deviation(series["input_mean"], series["input_rms"])
    found["written_norm"] = baseline.written_share(series["written_norm"], series["weight_norm"])
    found["weight_decay"] = baseline.setting_deviation(series.get("weight_decay", 0.0))
    return found


def _event(series: StepSeries, t: int, column: str, ratio: float, penalty: bool) -> Event:
    """The event for the deviation of a column at row t; `penalty` as in `LossPath.facts`."""
    step = series.step(t)
    if column == "written_norm":
        share = f"by {100 * ratio:.3g} % of their norm" if np.isfinite(ratio) else "with what is not finite"
        rise = Rise("surgery", f"parameters were overwritten {share}, not by the optimizer")
    elif column in INPUTS:
        rise = _of_inputs(series, t, column, ratio)
    elif column == "weight_decay":
        further = _and_on(series[column], t, 1.0)
        step = series.step(_since(series[column], t))
        rise = Rise("decay", f"weight decay rose to {series[column][t]:.3g}{further}")
    elif column == "lr":
        step = series.step(_since(series["reach"], t))
        further = _and_on(series["reach"], t, ratio / series["reach"][t])
        usual = np.nanmedian(series["lr"][max(0, t - baseline.LENGTH) : t])
        own = series["lr"][t] / usual > ratio**0.5
        rise = Rise("step_size", f"{what_rose(by_rate=own)} rose to {ratio:.3g}× its past{further}")
    elif column == "update_norm":
        rise = Rise("step_size", f"the update was {ratio:.3g}× its past, loss and gradient were not")
    else:
        rise = _of_loss(series, t, column, ratio, penalty)
    written = column == "written_norm" and step > 1  # seen when the optimizer steps again
    when = f"between step {step - 1:,} and step {step:,}" if written else f"step {step:,}"
    return Event(step, rise.label, column, ratio, f"{when}: {rise.how}", rise.inner)


def _of_inputs(series: StepSeries, t: int, column: str, ratio: float) -> Rise:
    """What moved the inputs, whose mean or size deviates."""
    stays = series.inputs_stay(t)
    label = "input_shift" if stays else "bad_batch"
    if ratio > UNBOUNDED:
        return Rise(label, "inputs were not finite")
    if column == "input_rms" and ratio < 1 / UNBOUNDED:
        return Rise(label, f"the inputs were all 0{', and stayed so' if stays else ''}")
    moved = f"mean moved by {ratio:.2g} of their rms"
    moved = f"size moved by {ratio:.3g}×" if column == "input_rms" else moved
    return Rise(label, f"the inputs' {moved} {'and stayed' if stays else 'and came back: a bad batch'}")


def _of_loss(series: StepSeries, t: int, column: str, ratio: float, penalty: bool) -> Rise:
    """What raised the loss, or the gradient without it."""
    own, rise = own_rise(series, t, column, penalty), f"rose to {ratio:.3g}× its past"
    if column == "loss":
        own = own or loss_rise(series, t)
        if np.isnan(series["loss"][t]):
            rise = "was not a number,"
        elif series["loss"][t] < 0:
            rise = "fell below 0,"
        return own._replace(how=f"the loss {rise} {own.how}")
    if own is not None:
        return own._replace(how=f"the gradient {rise} {own.how}")
    compared = ", the loss before it did not"
    if not np.isfinite(series["loss"][max(0, t - baseline.LENGTH) : t + 1]).any():
        compared = " (no loss was given to compare)"
    elif series.ratio("loss", t) >= AS_EVER:
        compared = ", the loss before it no more than it had before"
    return Rise("step_size", f"the gradient {rise}{compared}")


def _since(setting: np.ndarray, t: int) -> int:
    """The row from which a setting has had the value of a row; the first ones have too short a past."""
    other = np.flatnonzero(~np.isclose(setting[:t], setting[t]))
    return int(other[-1]) + 1 if len(other) else t


def _and_on(setting: np.ndarray, t: int, unit: float) -> str:
    """How far a setting that has risen goes on rising before it falls, in some unit."""
    falls = np.flatnonzero(np.diff(setting[t:]) < 0)
    highest = float(np.nanmax(setting[t : t + 1 + int(falls[0])] if len(falls) else setting[t:]))
    return f", and on to {highest * unit:.3g}{'' if unit == 1.0 else '×'}" if highest > 2 * setting[t] else ""


def _with_other_optimizer(series: StepSeries, found: list[Event]) -> list[Event]:
    """Add that the optimizers that were given stopped stepping, though the training went on."""
    stepped = np.flatnonzero(np.isfinite(series["lr"]))
    if len(stepped) < baseline.SHORTEST or stepped[-1] + EPISODE >= len(series):
        return found
    step = series.step(stepped[-1] + 1)
    text = f"from step {step:,} on: no optimizer that was given made a step; another one trains, unseen"
    return with_cause(found, Event(step, "unknown", "lr", 0.0, text))


def _with_other_mode(series: StepSeries, found: list[Event]) -> list[Event]:
    """Add that forwards in training mode stopped, though the optimizers went on."""
    # the outputs of integers alone are seen
    seen = np.isfinite(series["input_rms"]) | np.isfinite(series.get("output_rms", np.nan))
    stepped = np.flatnonzero(np.isfinite(series["lr"]))
    last = np.flatnonzero(seen)[-1] if seen.any() else len(seen)
    if seen.sum() < baseline.SHORTEST or last + EPISODE >= len(seen) or (stepped > last).sum() < EPISODE:
        return found
    step = series.step(last + 1)
    text = f"from step {step:,} on: no forward in training mode was seen, though optimizers stepped (eval()?)"
    return with_cause(found, Event(step, "forward", UNTRAINED, float("inf"), text))
