"""Drifts: events that no single step shows, as their values leave the past slowly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from harness.attribution import baseline
from harness.attribution.event import (
    BUFFER,
    DRIFT,
    EPISODE,
    FROZEN,
    INPUTS,
    MODE,
    NAMES,
    NORM,
    OUTSIDE,
    SLOW,
    UNTRAINED,
    Event,
    with_cause,
)
from harness.attribution.step_series import StepSeries

SMOOTHED = 30  # steps in the running median of a loss
SLOWLY = 1.3  # ratio of that median to itself five steps before, below which it rises slowly
RISEN = 1.5  # ratio of that median to its lowest from which the loss has risen
LASTS = 50  # fewest steps for which it must have
NEAR_ZERO = 0.1  # share of its first size below which a loss is near 0
FAR_OFF = 4.0  # times their own rms by which outputs miss targets that have moved
SAME = 1.25  # ratio below which what is compared at both times is the same
FLAT = 1.2  # ratio below which a learning rate has not moved
#: Settings that must not be below 0: column, label, and what a negative one does.
NEGATIVE = (
    ("lr", "step_size", "learning rate is negative, so that steps go up the loss"),
    ("weight_decay", "decay", "weight decay is negative, so that parameters grow by themselves"),
)
#: Kind of what changed, though no optimizer trains it → the label of the event.
LABEL_OF_KIND = {NORM: "norm_stats", MODE: "norm_stats", FROZEN: "surgery", NAMES: "surgery"}
FEW = 3  # largest number of windows in which a change is a single one


def with_drifts(
    steps: StepSeries,
    found: list[Event],
    untrained: Mapping[str, Mapping[str, Any]],
    facts: Mapping[str, Any],
) -> list[Event]:
    """Add the slow events to the others.

    Args:
        steps: the scalars of the steps.
        found: the events so far.
        untrained: `UntrainedState.changes`.
        facts: `LossPath.facts`.
    """
    found = _with_input_drift(steps, _with_rate(steps, found))
    rise = _rise(steps)
    found = _with_untrained(found, untrained, rise)
    return found if rise is None else _with_loss_drift(steps, found, *rise, facts)


# --- what is not trained ----------------------------------------------------------------------------


def _with_untrained(
    found: list[Event], untrained: Mapping[str, Mapping[str, Any]], rise: tuple[int, int, int] | None
) -> list[Event]:
    """Add changes of what no optimizer trains, if they set in after the first census.

    One that goes on may be a schedule, or an average: its ratio is 0, unless the loss rises during it, or an
    event comes where it begins. A number that goes up and down, the last loss, say, is no setting.
    """
    alike: dict[tuple[int, int, str, bool], list[str]] = {}
    for name, change in untrained.items():
        (start, end), kind = change["windows"][0], str(change["kind"])
        goes_on = len(change["windows"]) > FEW
        if (start > 0 or kind == MODE) and not (goes_on and (kind == FROZEN or not change["one_way"])):
            alike.setdefault((start, end, kind, goes_on), []).append(name)
    for (start, end, kind, goes_on), names in alike.items():
        first = untrained[names[0]]
        label = LABEL_OF_KIND.get(kind, "forward")
        near = [e.step for e in found if start < e.step <= end + 1]
        more = f", and {len(names) - 1} more like it" if len(names) > 1 else ""
        text = f"between step {start:,} and step {end:,}: {changed_words(names[0], first)}{more}"
        text += f", and on in {len(first['windows']) - 1:,} later windows" if goes_on else ""
        sure = not goes_on or bool(near) or (rise is not None and start <= rise[1])
        event = Event(min(near, default=start + 1), label, UNTRAINED, float(sure), text)
        found = with_cause(found, event) if sure else sorted([*found, event], key=lambda one: one.step)
    return found


def changed_words(name: str, change: Mapping[str, Any]) -> str:
    """What `UntrainedState.changes` says of a name."""
    if change["kind"] == NAMES:
        return f"the model was changed: parameters or buffers went, were renamed or replaced ({name})"
    if change["kind"] in (NORM, BUFFER, FROZEN):
        what = "the frozen parameter" if change["kind"] == FROZEN else "the buffer"
        share = 100 * change["after"]
        return f"{what} {name} changed" + (f", by {share:.3g} % of its norm" if share < 1e6 else "")
    if change["kind"] == MODE:
        norm, mode = name.removesuffix(".training"), "training" if change["after"] else "evaluation"
        return f"the norm {norm} went to {mode} mode"
    before, after, last = (f"{change[key]:.3g}" for key in ("before", "after", "last"))
    return f"{name} went from {before} to {after}" + (f", and on to {last}" if last != after else "")


# --- the loss ---------------------------------------------------------------------------------------


def _rise(steps: StepSeries) -> tuple[int, int, int] | None:
    """Rows at which the smoothed loss was lowest, has risen, and ends to be so; None if it never rises."""
    loss = steps["loss"]
    known = np.isfinite(loss)
    if known.sum() < SMOOTHED + LASTS or (loss[known] < 0).any():
        return None
    smooth = _smooth(loss)
    settled = np.arange(len(loss)) >= SMOOTHED - 1
    lowest = np.fmin.accumulate(np.where(settled, smooth, np.inf))
    up = settled & (~known | (smooth > RISEN * lowest)) & (lowest > 0)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], up.astype(int), [0]])))
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        slow = RISEN * lowest[start] < smooth[start] < SLOWLY * smooth[max(0, start - 5)]
        if end - start >= LASTS and slow:
            low = int(np.nanargmin(np.where(settled[: start + 1], smooth[: start + 1], np.nan)))
            return low, int(start), int(end)
    return None


def _with_loss_drift(
    steps: StepSeries, found: list[Event], low: int, start: int, end: int, facts: Mapping[str, Any]
) -> list[Event]:
    """Add a slow rise of the loss that longer steps do not explain."""
    step = steps.step(start)
    names = ("loss", "update_norm", "output_rms", "output_grad_norm", "lr", "weight_decay", *INPUTS)
    smooth = {name: _smooth(steps[name]) for name in names if name in steps}
    later = min(start + SMOOTHED, end - 1)
    first = next((float(x) for x in steps["loss"] if np.isfinite(x) and x > 0), np.nan)
    errors = np.sqrt(smooth["loss"] / first) * facts["target_error"] if "target_error" in facts else None

    def ratio(name: str, row: int) -> float:
        series = smooth.get(name)
        return float(series[row] / series[low]) if series is not None and series[low] else float("nan")

    since = steps.step(low) - EPISODE
    explained = [e for e in found if e.column in (*OUTSIDE, DRIFT) and since <= e.step <= step + EPISODE]
    if explained or ratio("lr", later) > FLAT or ratio("weight_decay", later) > FLAT:
        return found
    highest = float(np.nanmax(smooth["loss"][start:end]) / smooth["loss"][low])
    text = f"from step {step:,} on: the loss has risen slowly, to {highest:.3g}× its lowest"
    at_outputs = ratio("output_grad_norm", start)
    far = (0.0, 0.0)  # how far outputs miss their targets, in their own rms
    if errors is not None:
        far = errors[low] / smooth["output_rms"][low], errors[later] / smooth["output_rms"][later]
    if far[1] > FAR_OFF and far[1] > 2 * far[0]:
        label, why = "labels", f", and outputs miss their targets by {far[1]:.2g}× their own rms: these moved"
    elif max(ratio("update_norm", start), ratio("update_norm", later)) <= SAME:
        label, why = "labels", ", though steps are no longer than before"
        why += "" if _moved_inputs(smooth, low, end - 1) else ", and the inputs the same"
        if inputs := _moved_inputs(smooth, low, later):
            label, why = "input_shift", f", and the inputs with it: {inputs}"
        elif facts.get("penalty") is True and ratio("output_grad_norm", later) < 1.1:
            why = "; the gradient at the outputs did not: a part of the loss does not read them"
            label = "loss_penalty"
    elif at_outputs >= 0.9 * ratio("loss", start) and ratio("output_rms", start) < SAME:
        near_zero = smooth["loss"][low] < NEAR_ZERO * first  # there, every change raises both alike
        label = "labels" if near_zero else "step_size"
        why = " over outputs as before, and the gradient there with it"
        why += "" if near_zero else ": its scale rises"
    else:
        return found
    return with_cause(found, Event(step, label, SLOW, highest, text + why))


def _moved_inputs(smooth: Mapping[str, np.ndarray], low: int, later: int) -> str:
    """How far the inputs have moved between two rows; "" if they have not."""
    mean, rms = ((smooth[name][low], smooth[name][later]) for name in INPUTS)
    if not rms[0] > 0:
        return ""
    shift, grown = abs(mean[1] - mean[0]) / rms[0], rms[1] / rms[0]
    parts = [f"their mean moved by {shift:.2g} of their rms"] if shift > baseline.MEAN_SHIFT else []
    parts += [f"their size by {grown:.3g}×"] if max(grown, 1 / grown) > baseline.RATIOS["input_rms"] else []
    return ", ".join(parts)


def _smooth(values: np.ndarray) -> np.ndarray:
    known = pd.Series(values).replace([np.inf, -np.inf], np.nan)
    return known.rolling(SMOOTHED, min_periods=baseline.SHORTEST).median().to_numpy(float)


# --- inputs and settings ----------------------------------------------------------------------------


def _with_input_drift(steps: StepSeries, found: list[Event]) -> list[Event]:
    """Add a slow drift of the inputs; unless from outside, later events are symptoms."""
    mean, rms = (pd.Series(steps[name]).replace([np.inf, -np.inf], np.nan) for name in INPUTS)
    size = baseline.known_median(rms.iloc[: baseline.LENGTH])
    if any(event.column in INPUTS for event in found) or len(mean) < 2 * baseline.LENGTH or not size > 0:
        return found
    mean, rms = (v.rolling(baseline.LENGTH, min_periods=baseline.SHORTEST).median() for v in (mean, rms))
    shift = (mean - mean.iloc[baseline.LENGTH - 1]).abs() / size
    resized = (rms / size).apply(np.log).abs() > np.log(baseline.RATIOS["input_rms"])
    near = np.flatnonzero(~((shift > baseline.MEAN_SHIFT) | resized))
    start = int(near[-1]) + 1 if len(near) else 0
    if start >= len(mean):
        return found
    step, last, grown = steps.step(start), float(shift.iloc[-1]), float(rms.iloc[-1] / size)
    text = f"from step {step:,} on: the inputs have drifted, their mean by {last:.2g} of their rms"
    text += f", their size by {grown:.3g}×" if resized.iloc[-1] else ""
    return with_cause(found, Event(step, "input_shift", DRIFT, max(last, grown), text))


def _with_rate(steps: StepSeries, found: list[Event]) -> list[Event]:
    """Add a learning rate that rises slowly until the end, and settings that are negative."""
    rate, reach = steps["lr"], steps["reach"]
    for column, label, does in NEGATIVE:
        below = np.flatnonzero(steps.get(column, np.nan) < 0)
        if len(below):
            step = steps.step(below[0])
            text = f"from step {step:,} on: the {does}"
            return with_cause(found, Event(step, label, column, float("inf"), text))
    known = np.flatnonzero(np.isfinite(reach) & (reach > 0))
    if any(event.column == "lr" for event in found) or len(known) < 2 * baseline.SHORTEST:
        return found
    own = reach[known]
    risen, least = own / own[0], baseline.RATIOS["lr"]
    if not (risen[-1] > least and own[-1] >= 0.9 * own.max() and own[-1] > least * own[len(own) // 2]):
        return found
    start = int(np.flatnonzero(risen <= least)[-1]) + 1
    step = steps.step(known[start])
    by_rate = rate[known[-1]] / rate[known[0]] > np.sqrt(risen[-1])
    text = f"from step {step:,} on: {what_rose(by_rate=by_rate)} has risen slowly, to {risen[-1]:.3g}×"
    return with_cause(found, Event(step, "step_size", "lr", float(risen[-1]), text))


def what_rose(*, by_rate: bool) -> str:
    """What made the `reach` of steps rise, in words."""
    momentum = "the momentum, and with it how far a gradient takes the parameters,"
    return "the learning rate" if by_rate else momentum
