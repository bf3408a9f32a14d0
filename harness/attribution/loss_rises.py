"""A rise of the loss, or of its gradient: whether the labels, the loss itself or the steps raised it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from harness.attribution import baseline
from harness.attribution.event import EPISODE
from harness.attribution.step_series import AS_EVER, LEAP, StepSeries

CALM = 0.05  # ‖Δθ‖ / ‖θ‖ above which training is not calm
LONG_STEP = 0.01  # ‖Δθ‖ / ‖θ‖ from which a step may raise the loss by its length
SETTLED = 40  # steps without an event after which steps of this length are tolerated
JUMP = 5  # ratio of a jump of the loss to its previous maximum, after which training brings it down again
FAR = 3.0  # ratio from which a rise of the loss over outputs that are as before is the loss's own
RISEN = 3.0  # ratio of the learning rate to that of the first steps, from which steps are no longer as then
ONCE = 10.0  # ratio from which even a rise for a moment is no odd batch of a usual training
LITTLE = 0.1  # power of a rise below which outputs have moved far too little to explain it
SAME = "though the outputs are as before"


class Rise(NamedTuple):
    """What raised a loss or its gradient.

    Attributes:
        label: the cause.
        how: how it rose, in words.
        inner: whether the training itself caused it.
    """

    label: str
    how: str
    inner: bool = False


def with_strange(loss: np.ndarray, deviation: np.ndarray) -> np.ndarray:
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


def own_rise(steps: StepSeries, t: int, column: str, penalty: bool) -> Rise | None:
    """A rise of the loss or its gradient over outputs that are as before; None if they are not.

    The parameters did not cause it, as they would have moved the outputs: it comes from the loss itself.
    """
    rise, moved, at_outputs = (steps.ratio(name, t) for name in (column, "output_rms", "output_grad_norm"))
    little = max(AS_EVER, max(rise, 0.0) ** LITTLE)
    if not 1 / little < moved < little or steps.is_longer(t - 1):
        return None
    if not at_outputs > AS_EVER:
        known = penalty and rise > at_outputs * AS_EVER and at_outputs > 1 / AS_EVER
        how = f"{SAME}, and so is the gradient there: a part of the loss does not read them"
        return Rise("loss_penalty", how) if known else None
    how = f"{SAME}, and the gradient there rose to {at_outputs:.3g}×"
    if column == "grad_norm" and not np.isfinite(steps["loss"][max(0, t - baseline.LENGTH) : t + 1]).any():
        return _unseen_rise(steps, t, at_outputs, how)
    if rise < FAR or column != "loss":
        return None
    after = steps["loss"][t + 1 : t + 4] / steps["loss"][t] * rise
    if 1 / AS_EVER < rise / at_outputs < AS_EVER:
        alone = len(after) > 1 and np.median(after) < AS_EVER
        how = f"{how}: its scale rose"
        return Rise("bad_batch", f"{how}, in this step alone") if alone else Rise("step_size", how)
    # one odd batch alone is no change, though it may leave the network worse
    lasts = len(after) > 0 and not np.median(after) < max(FAR, rise**0.5)
    rises = rise < 10 * FAR and np.fmax.reduce(after, initial=0.0) > FAR * rise  # step by step: it diverges
    outputs = steps["output_rms"][t : t + 4]
    rises &= not np.fmax.reduce(outputs, initial=0.0) < AS_EVER * outputs[0]
    usual = steps.past("loss", t).max()  # near 0, one input of a batch is enough to raise a loss far
    far = rise > ONCE and len(after) > 0 and np.isfinite(after).all() and steps["loss"][t] > JUMP * usual
    if not (lasts or far) or rises or steps.was_rising(t):
        return None
    if lasts and _comes_back(steps, t, rise):
        return Rise("bad_batch", f"{how}, in this step alone: its targets threw the outputs off")
    return Rise("labels", how) if lasts else Rise("bad_batch", f"for a moment, {how}")


def _unseen_rise(steps: StepSeries, t: int, rise: float, how: str) -> Rise | None:
    """The same of a loss that was not given, by its gradient at the outputs."""
    series, usual = steps["output_grad_norm"], steps.past("output_grad_norm", t).max()
    after = series[t + 1 : t + 4] / series[t] * rise
    if rise < FAR or not len(after):
        return None
    if not np.median(after) < max(FAR, rise**0.5):
        return Rise("labels", f"{how} (no loss was given)")
    return Rise("bad_batch", f"for a moment, {how}") if series[t] > JUMP * usual else None


def _comes_back(steps: StepSeries, t: int, rise: float) -> bool:
    """Whether a step threw the outputs off, which then came back to their size, and so did most of the loss.

    Targets that stay far would keep the outputs at their size, or the loss at that of the targets.
    """
    outputs, last = steps["output_rms"], slice(max(t + EPISODE, len(steps) - EPISODE), None)
    if t + EPISODE >= len(outputs) or not np.nanmax(outputs[t + 1 : t + 4]) > FAR * outputs[t]:
        return False
    then = float(np.median(steps["loss"][last]) / steps["loss"][t]) * rise
    return then < rise**0.5 and bool(np.median(outputs[last]) < LEAP * outputs[t])


def loss_rise(steps: StepSeries, t: int) -> Rise:
    """A loss that deviates first: changed labels, unless earlier steps caused the rise."""
    loss = steps["loss"]
    if not np.isfinite(loss[t]) or loss[t] < 0:
        if steps.is_longer(t - 1) or steps.was_rising(t):
            return Rise("step_size", "after it had risen in the steps before", inner=True)
        return Rise("labels", "though the step before it was no longer than usual")
    before, after = steps.past("loss", t), loss[t : t + EPISODE]
    after = after[np.isfinite(after)]
    high = max(1.3 * np.median(before), np.quantile(before, 0.9))  # a loss near 0 has heavy tails
    stays = len(after) >= 3 and float(np.median(after)) > high
    jumps = len(after) >= 3 and min(after[0] / JUMP, *after[1:3]) > before.max()
    how = "and stayed" if stays else "and came down step by step"
    if steps.is_longer(t - 1):
        return Rise("step_size", "after a longer update", inner=True)
    if not stays and not jumps:
        back = np.isfinite(loss[t : t + EPISODE]).all()
        how = "for a moment, and the gradient with it" if back else "and diverged"
        return Rise("step_size", how, inner=True)
    if steps.was_rising(t):
        return Rise("step_size", f"{how}, after it had risen in the steps before", inner=True)
    moved, rate = steps.moved(slice(max(0, t - 20), t)), steps.rate_since_start(t)
    settled = t >= SETTLED and moved <= min(CALM, steps.moved(slice(0, 20))) and rate < RISEN
    leaps = (moved < LONG_STEP or settled) and steps.leaps(t)
    if steps.goes_on_rising(t) and not leaps:
        return Rise("step_size", "and went on rising as fast", inner=True)
    if t < SETTLED and loss[t] <= np.nanmax(loss[:t]):
        return Rise("step_size", f"{how}, below where it had been before", inner=True)
    if moved >= LONG_STEP and not settled:
        risen = f", at {rate:.3g}× the first learning rate" if rate >= RISEN else ""
        return Rise("step_size", f"{how}, under steps of {100 * moved:.2g} % of ‖θ‖{risen}", inner=True)
    if leaps:
        outputs = f"with the outputs at {steps.ratio('output_rms', t):.3g}×"
        still = "though neither the parameters nor the inputs moved much"
        changed = "what the forward does, or the inputs otherwise, changed"
        return Rise("unknown", f"{how}, {outputs}, {still}: {changed}")
    return Rise("labels", f"{how}; the step before it was no longer than usual")
