"""The recorded scalars of every optimizer step, and the questions that the events ask about their course."""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.attribution import baseline
from harness.attribution.event import EPISODE

AS_EVER = 1.5  # ratio below which a value is as before
LEAP = 2.0  # ratio of the outputs, beyond their noise, to which no labels take them
STEEP = 1 / 3  # share of a rise (of the logarithm) in the previous step above which it is not a jump
ALIKE = 0.8  # part of a rise (of the logarithm) that is as large again
UNBOUNDED = 1e300  # ratio above which a value was not finite


class StepSeries:
    """One array per scalar, with one value per step; methods take the row of a step.

    `reach` is how far a gradient takes the parameters in all: the learning rate over 1 - momentum.

    Args:
        steps: as in `harness.attribution.events.events`.
    """

    def __init__(self, steps: pd.DataFrame) -> None:
        self._columns = {str(name): column.to_numpy(float) for name, column in steps.items()}
        momentum = np.nan_to_num(self.get("momentum", 0.0))
        self._columns["reach"] = self["lr"] / (1 - np.clip(momentum, 0.0, 0.9999))

    def __getitem__(self, name: str) -> np.ndarray:
        return self._columns[name]

    def __contains__(self, name: str) -> bool:
        return name in self._columns

    def __len__(self) -> int:
        return len(self._columns["step"])

    def get(self, name: str, missing: float) -> np.ndarray:
        """A column, or one of a single value if it was not recorded."""
        return self._columns[name] if name in self else np.full(len(self), missing)

    def step(self, t: int) -> int:
        """The number of the step of a row."""
        return int(self["step"][t])

    def past(self, name: str, t: int, length: int = baseline.LENGTH) -> np.ndarray:
        """The finite values of a column in the rows before one."""
        before = self.get(name, np.nan)[max(0, t - length) : max(0, t)]
        return before[np.isfinite(before)]

    def ratio(self, name: str, t: int) -> float:
        """Ratio of a value to the median of the few before it (outputs grow in training); NaN if unknown."""
        before = self.past(name, t, baseline.SHORTEST)
        if len(before) < baseline.SHORTEST / 2 or not np.median(before) > 0:
            return float("nan")
        return float(self[name][t] / np.median(before))

    def is_longer(self, t: int) -> bool:
        """Whether an update was longer than those before it, beyond their variation, or not finite."""
        before = self.past("update_norm", t)
        before = before[before > 0]
        if t < 1 or len(before) < baseline.SHORTEST:
            return False
        least = max(np.log(AS_EVER), _noise(before))
        if not np.isfinite(self["update_norm"][t]):
            return True
        return bool(self["update_norm"][t] > np.median(before) * np.exp(least))

    def moved(self, rows: slice) -> float:
        """Median ‖Δθ‖ / ‖θ‖ over some rows; 0 if it was not observed."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = self["update_norm"][rows] / self["weight_norm"][rows]
        ratio = ratio[np.isfinite(ratio)]
        return float(np.median(ratio)) if len(ratio) else 0.0

    def rate_since_start(self, t: int) -> float:
        """Ratio of `reach` to that of the first steps; NaN if unknown."""
        first = self["reach"][: baseline.SHORTEST]
        first = first[np.isfinite(first) & (first > 0)]
        return float(self["reach"][t] / np.median(first)) if len(first) else float("nan")

    def leaps(self, t: int) -> bool:
        """Whether the outputs leave the few before further than new labels explain.

        Labels act on the outputs by the steps that follow.
        """
        before, ratio = self.past("output_rms", t), self.ratio("output_rms", t)
        before = before[before > 0]
        known = len(before) >= baseline.SHORTEST and ratio > 0
        return known and bool(abs(np.log(ratio)) > max(np.log(LEAP), _noise(before)))

    def was_rising(self, t: int) -> bool:
        """Whether the loss was already higher than ever in the previous step, by a large part of its rise."""
        loss, before = self["loss"], self.past("loss", t - 1, baseline.LENGTH - 1)
        before = before[before > 0]
        if not len(before) or not loss[t - 1] > before.max():
            return False
        usual = np.median(before)
        return bool(np.log(loss[t - 1] / usual) >= STEEP * np.log(min(loss[t], UNBOUNDED) / usual))

    def goes_on_rising(self, t: int) -> bool:
        """Whether the next steps raise the loss by as large a factor again; changed labels raise it once."""
        loss, usual = self["loss"], np.median(self.past("loss", t))
        known = loss[t + 1 : t + 4][~np.isnan(loss[t + 1 : t + 4])]
        return bool(len(known) and usual > 0 and known.max() / loss[t] > (loss[t] / usual) ** ALIKE)

    def inputs_matter(self, t: int) -> bool:
        """Whether the inputs stay moved, or what follows is unusual: small batches vary by chance."""
        loss, *others = (self.ratio(name, t) for name in ("loss", "grad_norm", "update_norm"))
        return self.inputs_stay(t) or loss >= AS_EVER or not all(one < AS_EVER for one in others)

    def inputs_stay(self, t: int) -> bool:
        """Whether the inputs are still far from their baseline in most steps of the episode."""
        rms, mean = self["input_rms"], self["input_mean"]
        before, later = slice(max(0, t - baseline.LENGTH), t), slice(t + 1, t + EPISODE)
        if not len(rms[later]):
            return False
        rms_baseline, mean_baseline = np.nanmedian(rms[before]), np.nanmedian(mean[before])
        with np.errstate(divide="ignore", invalid="ignore"):  # all-zero or non-finite inputs
            resized = np.abs(np.log(rms[later] / rms_baseline)) > np.log(baseline.RATIOS["input_rms"])
        far = resized | (np.abs(mean[later] - mean_baseline) > baseline.MEAN_SHIFT * rms_baseline)
        return bool(np.mean(far) > 0.5)


def _noise(before: np.ndarray) -> float:
    """How far the logarithm of positive values leaves its median by chance, at most."""
    logs = np.log(before)
    return float(baseline.DEVIATIONS * baseline.MAD * np.median(np.abs(logs - np.median(logs))))
