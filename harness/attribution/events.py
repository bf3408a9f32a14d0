"""Dated events: what deviated from its baseline first, and when.

Within one step the causal order is: writes into the parameters by others, inputs, loss, gradient, learning
rate, update. The first column to deviate names the event. Deviations that follow without a pause of ten steps
belong to the same episode, unless they come from outside (`OUTSIDE`) and the start of the episode did not.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.attribution import baseline
from harness.attribution.drifts import reach_of, what_rose, with_drifts
from harness.attribution.event import EPISODE, INPUTS, ORDER, OUTSIDE, UNTRAINED, Event, with_cause

CALM = 0.05  # ‖Δθ‖ / ‖θ‖ above which training is not calm
LASTING = 3  # steps within which a deviation that was there is no new event
LONG_STEP = 0.01  # ‖Δθ‖ / ‖θ‖ from which a step may raise the loss by its length
SETTLED = 40  # steps without an event after which steps of this length are tolerated
JUMP = 5  # ratio of a jump of the loss to its previous maximum, after which training brings it down again
STEEP = 1 / 3  # share of a rise (of the logarithm) in the previous step above which it is not a jump
AS_EVER = 1.5  # ratio below which the outputs, or the gradient at them, are as before
FAR = 3.0  # ratio from which a rise of the loss over outputs that are as before is the loss's own
LEAP = 2.0  # ratio of the outputs, beyond their noise, to which no labels take them
RISEN = 3.0  # ratio of the learning rate to that of the first steps, from which steps are no longer as then
ONCE = 10.0  # ratio from which even a rise for a moment is no odd batch of a usual training
ALIKE = 0.8  # part of a rise (of the logarithm) that is as large again
SAME = "though the outputs are as before"
UNBOUNDED = 1e300  # ratio above which a value was not finite


def events(steps: pd.DataFrame) -> list[Event]:
    """The first event of every episode of a training run, in order of time.

    Args:
        steps: step, input_mean, input_rms, written_norm, loss, grad_norm, update_norm, weight_norm, lr,
            weight_decay, output_rms, output_grad_norm; NaN if something was not observed, infinite if it was
            not finite. Its attribute `loss` holds the facts of `LossPath.facts`.
    """
    if len(steps) < 2:
        return []
    values = {str(name): column.to_numpy(float) for name, column in steps.items()}
    values["reach"] = reach_of(values)
    deviations = {name: baseline.ratio_deviation(values[name], name) for name in baseline.RATIOS}
    deviations["lr"] = baseline.ratio_deviation(values["reach"], "lr")
    deviations["loss"] = _with_strange(values["loss"], deviations["loss"])
    deviations["input_mean"] = baseline.mean_deviation(values["input_mean"], values["input_rms"])
    deviations["written_norm"] = baseline.written_share(values["written_norm"], values["weight_norm"])
    deviations["weight_decay"] = baseline.setting_deviation(values.get("weight_decay", np.zeros(len(steps))))
    facts = steps.attrs.get("loss", {})
    penalty = facts.get("penalty") is True
    first: list[Event] = []
    episode_end = 0
    for t in np.flatnonzero(np.any([deviations[c] > 0 for c in ORDER], axis=0)):
        column = next(c for c in ORDER if deviations[c][t] > 0)
        goes_on = t < episode_end and (column not in OUTSIDE or first[-1].column in OUTSIDE)
        goes_on |= bool(first) and bool((deviations[column][max(0, t - LASTING) : t] > 0).any())
        if column in INPUTS and not _inputs_matter(values, int(t)):
            continue
        if not goes_on:
            first.append(_event(values, int(t), column, float(deviations[column][t]), penalty))
        if not goes_on or not first[-1].inner:  # a symptom may come just before a cause
            episode_end = t + EPISODE
    untrained = steps.attrs.get("untrained", {})
    return _with_other_mode(
        values, _with_other_optimizer(values, with_drifts(values, first, untrained, facts))
    )


def calm_before(steps: pd.DataFrame, step: int) -> bool:
    """Whether ‖Δθ‖ / ‖θ‖ was small (below `CALM`) in the twenty steps before."""
    before = steps[(steps["step"] < step) & (steps["step"] >= step - 20)]
    ratio = (before["update_norm"] / before["weight_norm"]).to_numpy(float)
    ratio = ratio[np.isfinite(ratio)]
    return not len(ratio) or bool(np.median(ratio) < CALM)


def _event(values: dict[str, np.ndarray], t: int, column: str, ratio: float, penalty: bool = False) -> Event:
    """The event for the deviation of a column at row t; `penalty` as in `LossPath.facts`."""
    step, inner = int(values["step"][t]), False
    rise = f"rose to {ratio:.3g}× its past"
    if column == "written_norm":
        share = f"by {100 * ratio:.3g} % of their norm" if np.isfinite(ratio) else "with what is not finite"
        label, text = "surgery", f"parameters were overwritten {share}, not by the optimizer"
    elif column in INPUTS:
        stays = _inputs_stay(values, t)
        label = "input_shift" if stays else "bad_batch"
        size = column == "input_rms"
        moved = f"size moved by {ratio:.3g}×" if size else f"mean moved by {ratio:.2g} of their rms"
        text = f"the inputs' {moved} {'and stayed' if stays else 'and came back: a bad batch'}"
        if ratio > UNBOUNDED:
            text = "inputs were not finite"
    elif column == "weight_decay":
        label, text = (
            "decay",
            f"weight decay rose to {values[column][t]:.3g}{_and_on(values[column], t, 1.0)}",
        )
    elif column == "loss":
        label, reason, inner = _own_rise(values, t, column, penalty) or _loss_rise(values, t)
        if np.isnan(values["loss"][t]):
            rise = "was not a number,"
        elif values["loss"][t] < 0:
            rise = "fell below 0,"
        text = f"the loss {rise} {reason}"
    elif column == "lr":
        further = _and_on(values["reach"], t, ratio / values["reach"][t])
        usual = np.nanmedian(values["lr"][max(0, t - baseline.LENGTH) : t])
        own = values["lr"][t] / usual > ratio**0.5
        label, text = "step_size", f"{what_rose(by_rate=own)} {rise}{further}"
    elif column == "grad_norm" and (own := _own_rise(values, t, column, penalty)):
        label, reason, inner = own
        text = f"the gradient {rise} {reason}"
    elif column == "grad_norm":
        known = np.isfinite(values["loss"][max(0, t - baseline.LENGTH) : t + 1]).any()
        rose = _ratio(values, "loss", t) >= AS_EVER
        compared = (
            ", the loss before it no more than it had before" if rose else ", the loss before it did not"
        )
        compared = compared if known else " (no loss was given to compare)"
        label, text = "step_size", f"the gradient {rise}{compared}"
    else:
        label, text = "step_size", f"the update was {ratio:.3g}× its past, loss and gradient were not"
    written = column == "written_norm" and step > 1  # seen when the optimizer steps again
    when = f"between step {step - 1:,} and step {step:,}" if written else f"step {step:,}"
    return Event(step, label, column, ratio, f"{when}: {text}", inner)


def _and_on(setting: np.ndarray, t: int, unit: float) -> str:
    """How far a setting that has risen goes on rising before it falls, in some unit."""
    falls = np.flatnonzero(np.diff(setting[t:]) < 0)
    highest = float(np.nanmax(setting[t : t + 1 + int(falls[0])] if len(falls) else setting[t:]))
    return f", and on to {highest * unit:.3g}{'' if unit == 1.0 else '×'}" if highest > 2 * setting[t] else ""


def _with_strange(loss: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """The deviations of the loss, which one that is suddenly NaN or below 0 has, too."""
    known, deviation = np.isfinite(loss), deviation.copy()
    for strange in (np.isnan(loss), loss < 0):
        at = int(np.argmax(strange))
        before = loss[max(0, at - baseline.LENGTH) : at]
        before = before[np.isfinite(before)]
        usual = known[:at].sum() >= baseline.SHORTEST and known[at - 1] and not (before < 0).any()
        if usual and not loss[at] > before.min() - 2 * np.ptp(before):  # some losses vary about 0
            deviation[at] = max(deviation[at], 1.0)
    return deviation


def _with_other_optimizer(values: dict[str, np.ndarray], found: list[Event]) -> list[Event]:
    """Add that the optimizers that were given stopped stepping, though the training went on."""
    stepped = np.flatnonzero(np.isfinite(values["lr"]))
    if len(stepped) < baseline.SHORTEST or stepped[-1] + EPISODE >= len(values["lr"]):
        return found
    step = int(values["step"][stepped[-1] + 1])
    text = f"from step {step:,} on: no optimizer that was given made a step; another one trains, unseen"
    return with_cause(found, Event(step, "unknown", "lr", 0.0, text))


def _with_other_mode(values: dict[str, np.ndarray], found: list[Event]) -> list[Event]:
    """Add that forwards in training mode stopped, though the optimizers went on."""
    inputs = values["input_rms"]  # the outputs of integers alone are seen
    seen = np.isfinite(inputs) | np.isfinite(values.get("output_rms", inputs))
    stepped = np.flatnonzero(np.isfinite(values["lr"]))
    last = np.flatnonzero(seen)[-1] if seen.any() else len(seen)
    if seen.sum() < baseline.SHORTEST or last + EPISODE >= len(seen) or (stepped > last).sum() < EPISODE:
        return found
    step = int(values["step"][last + 1])
    text = f"from step {step:,} on: no forward in training mode was seen, though optimizers stepped (eval()?)"
    return with_cause(found, Event(step, "forward", UNTRAINED, float("inf"), text))


def _own_rise(
    values: dict[str, np.ndarray], t: int, column: str, penalty: bool
) -> tuple[str, str, bool] | None:
    """Classify a rise of the loss or its gradient over outputs that are as before; None if they are not.

    The parameters did not cause it, as they would have moved the outputs: it comes from the loss itself.

    Returns:
        Label, how it rose, and whether the training itself caused it.
    """
    ratios = {name: _ratio(values, name, t) for name in (column, "output_rms", "output_grad_norm")}
    rise, moved, at_outputs = ratios.values()
    if not 1 / AS_EVER < moved < AS_EVER or _is_longer(values["update_norm"], t - 1):
        return None
    if not at_outputs > AS_EVER:
        known = penalty and rise > at_outputs * AS_EVER and at_outputs > 1 / AS_EVER
        reason = f"{SAME}, and so is the gradient there: a part of the loss does not read them"
        return ("loss_penalty", reason, False) if known else None
    if rise < FAR or column != "loss":
        return None
    after = values["loss"][t + 1 : t + 4] / values["loss"][t] * rise
    if 1 / AS_EVER < rise / at_outputs < AS_EVER:
        reason = f"{SAME}, and the gradient there rose to {at_outputs:.3g}×: its scale rose"
        alone = len(after) > 1 and np.median(after) < AS_EVER
        return (
            ("bad_batch", f"{reason}, in this step alone", False) if alone else ("step_size", reason, False)
        )
    # one odd batch alone is no change, though it may leave the network worse
    lasts = len(after) > 0 and not np.median(after) < max(FAR, rise**0.5)
    rises = rise < 10 * FAR and np.fmax.reduce(after, initial=0.0) > FAR * rise  # step by step: it diverges
    far = rise > ONCE and len(after) > 0 and np.isfinite(after).all()
    if (lasts or far) and not rises and not _was_rising(values["loss"], t):
        reason = f"{SAME}, and the gradient there rose to {at_outputs:.3g}×"
        if lasts and _comes_back(values, t, rise):
            return "bad_batch", f"{reason}, in this step alone: its targets threw the outputs off", False
        return ("labels", reason, False) if lasts else ("bad_batch", f"for a moment, {reason}", False)
    return None


def _comes_back(values: dict[str, np.ndarray], t: int, rise: float) -> bool:
    """Whether a step threw the outputs off, which then came back to their size, and so did most of the loss.

    Targets that stay far would keep the outputs at their size, or the loss at that of the targets.
    """
    outputs, last = values["output_rms"], slice(max(t + EPISODE, len(values["loss"]) - EPISODE), None)
    if t + EPISODE >= len(outputs) or not np.nanmax(outputs[t + 1 : t + 4]) > FAR * outputs[t]:
        return False
    then = float(np.median(values["loss"][last]) / values["loss"][t]) * rise
    return then < rise**0.5 and bool(np.median(outputs[last]) < LEAP * outputs[t])


def _ratio(values: dict[str, np.ndarray], name: str, t: int) -> float:
    """Ratio of a value to the median of the few before it, as outputs grow in training; NaN if unknown."""
    before = values[name][max(0, t - baseline.SHORTEST) : t] if name in values else np.empty(0)
    before = before[np.isfinite(before)]
    if len(before) < baseline.SHORTEST / 2 or not np.median(before) > 0:
        return float("nan")
    return float(values[name][t] / np.median(before))


def _loss_rise(values: dict[str, np.ndarray], t: int) -> tuple[str, str, bool]:
    """Classify a loss that deviates first: changed labels, unless earlier steps caused the rise.

    Returns:
        Label, how it rose, and whether the training itself caused it.
    """
    loss = values["loss"]
    if not np.isfinite(loss[t]) or loss[t] < 0:
        if _is_longer(values["update_norm"], t - 1) or _was_rising(loss, t):
            return "step_size", "after it had risen in the steps before", True
        return "labels", "though what came before was as ever", False
    before, after = loss[max(0, t - baseline.LENGTH) : t], loss[t : t + EPISODE]
    before, after = before[np.isfinite(before)], after[np.isfinite(after)]
    high = max(1.3 * np.median(before), np.quantile(before, 0.9))  # a loss near 0 has heavy tails
    stays = len(after) >= 3 and float(np.median(after)) > high
    jumps = len(after) >= 3 and min(after[0] / JUMP, *after[1:3]) > before.max()
    how = "and stayed" if stays else "and came down step by step"
    if _is_longer(values["update_norm"], t - 1):
        return "step_size", "after a longer update", True
    if not stays and not jumps:
        back = np.isfinite(loss[t : t + EPISODE]).all()
        return "step_size", "for a moment, and the gradient with it" if back else "and diverged", True
    if _was_rising(loss, t):
        return "step_size", f"{how}, after it had risen in the steps before", True
    moved, rate = _moved(values, slice(max(0, t - 20), t)), _rate_since_start(values, t)
    settled = t >= SETTLED and moved <= min(CALM, _moved(values, slice(0, 20))) and rate < RISEN
    outputs = _ratio(values, "output_rms", t)
    leaps = (moved < LONG_STEP or settled) and _leaps(values, t, outputs)
    if _goes_on_rising(loss, t) and not leaps:
        return "step_size", "and went on rising as fast", True
    if t < SETTLED and loss[t] <= np.nanmax(loss[:t]):
        return "step_size", f"{how}, below where it had been before", True
    if moved >= LONG_STEP and not settled:
        risen = f", at {rate:.3g}× the first learning rate" if rate >= RISEN else ""
        return "step_size", f"{how}, under steps of {100 * moved:.2g} % of ‖θ‖{risen}", True
    if leaps:
        reason = (
            f"with the outputs at {outputs:.3g}×, though neither the parameters nor the inputs moved much"
        )
        return "unknown", f"{how}, {reason}: what the forward does, or the inputs otherwise, changed", False
    return "labels", f"{how}; what came before was as ever", False


def _is_longer(update: np.ndarray, t: int) -> bool:
    """Whether an update was longer than those before it, beyond their variation."""
    before = update[max(0, t - baseline.LENGTH) : max(0, t)]
    before = before[np.isfinite(before) & (before > 0)]
    if t < 1 or len(before) < baseline.SHORTEST:
        return False
    return bool(update[t] > np.median(before) * np.exp(max(np.log(1.5), _noise(before))))


def _noise(before: np.ndarray) -> float:
    """How far the logarithm of positive values leaves its median by chance, at most."""
    logs = np.log(before)
    return float(baseline.DEVIATIONS * baseline.MAD * np.median(np.abs(logs - np.median(logs))))


def _leaps(values: dict[str, np.ndarray], t: int, ratio: float) -> bool:
    """Whether the outputs, at a ratio to the few before, leave them further than new labels explain.

    Labels act on the outputs by the steps that follow.
    """
    before = values.get("output_rms", np.empty(0))[max(0, t - baseline.LENGTH) : t]
    before = before[np.isfinite(before) & (before > 0)]
    known = len(before) >= baseline.SHORTEST and ratio > 0
    return known and bool(abs(np.log(ratio)) > max(np.log(LEAP), _noise(before)))


def _rate_since_start(values: dict[str, np.ndarray], t: int) -> float:
    """Ratio of the learning rate to that of the first steps; NaN if unknown."""
    first = values["reach"][: baseline.SHORTEST]
    first = first[np.isfinite(first) & (first > 0)]
    return float(values["reach"][t] / np.median(first)) if len(first) else float("nan")


def _was_rising(loss: np.ndarray, t: int) -> bool:
    """Whether the loss was already higher than ever in the previous step, by a large part of its rise."""
    before = loss[max(0, t - baseline.LENGTH) : t - 1]
    before = before[np.isfinite(before) & (before > 0)]
    if not len(before) or not loss[t - 1] > before.max():
        return False
    usual = np.median(before)
    return bool(np.log(loss[t - 1] / usual) >= STEEP * np.log(min(loss[t], UNBOUNDED) / usual))


def _goes_on_rising(loss: np.ndarray, t: int) -> bool:
    """Whether the next steps raise the loss by as large a factor again; changed labels raise it once."""
    before, after = loss[max(0, t - baseline.LENGTH) : t], loss[t + 1 : t + 4]
    usual = np.median(before[np.isfinite(before)])
    known = after[~np.isnan(after)]
    return bool(len(known) and usual > 0 and known.max() / loss[t] > (loss[t] / usual) ** ALIKE)


def _moved(values: dict[str, np.ndarray], rows: slice) -> float:
    """Median ‖Δθ‖ / ‖θ‖ over some rows; 0 if it was not observed."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = values["update_norm"][rows] / values["weight_norm"][rows]
    ratio = ratio[np.isfinite(ratio)]
    return float(np.median(ratio)) if len(ratio) else 0.0


def _inputs_matter(values: dict[str, np.ndarray], t: int) -> bool:
    """Whether the inputs stay moved, or what follows in the step is unusual: small batches vary by chance."""
    loss, *others = (_ratio(values, name, t) for name in ("loss", "grad_norm", "update_norm"))
    return _inputs_stay(values, t) or loss >= AS_EVER or not all(one < AS_EVER for one in others)


def _inputs_stay(values: dict[str, np.ndarray], t: int) -> bool:
    """Whether the inputs are still far from their baseline in most steps of the episode."""
    rms, mean = values["input_rms"], values["input_mean"]
    before, later = slice(max(0, t - baseline.LENGTH), t), slice(t + 1, t + EPISODE)
    if not len(rms[later]):
        return False
    rms_baseline, mean_baseline = np.nanmedian(rms[before]), np.nanmedian(mean[before])
    with np.errstate(divide="ignore", invalid="ignore"):  # all-zero or non-finite inputs
        resized = np.abs(np.log(rms[later] / rms_baseline)) > np.log(baseline.RATIOS["input_rms"])
    far = resized | (np.abs(mean[later] - mean_baseline) > baseline.MEAN_SHIFT * rms_baseline)
    return bool(np.mean(far) > 0.5)
