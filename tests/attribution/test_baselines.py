"""Baselines are what a loop over the steps finds."""

from __future__ import annotations

import numpy as np
import pytest

from harness.attribution.baseline import RATIOS, mean_deviation, ratio_deviation


def baseline_of(values: np.ndarray, t: int) -> np.ndarray:
    past = values[max(0, t - 50) : t]
    return past[np.isfinite(past)]


def left_slowly(values: np.ndarray, name: str) -> np.ndarray:
    found = np.zeros(len(values))
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(values)
    for t, log in enumerate(logs):
        past = baseline_of(logs, t)
        if np.isnan(log) or (np.isneginf(log) and name != "input_rms") or len(past) < 8:
            continue
        above = log - np.median(past)
        noise = 6 * 1.4826 * np.median(np.abs(past - np.median(past)))
        least = np.log(RATIOS[name])
        usual = min(noise, past.max() - np.median(past) + least)
        if (abs(above) if name == "input_rms" else above) > max(least, usual):
            found[t] = np.exp(np.clip(above, -700.0, 700.0))
    return found


def shifted_slowly(mean: np.ndarray, rms: np.ndarray) -> np.ndarray:
    found = np.zeros(len(mean))
    for t, value in enumerate(mean):
        past, sizes = baseline_of(mean, t), baseline_of(rms, t)
        if not np.isfinite(value) or len(past) < 8 or not len(sizes):
            continue
        moved, scale = abs(value - np.median(past)), np.median(sizes)
        noise = 6 * 1.4826 * np.median(np.abs(past - np.median(past)))
        if scale > 0 and moved > max(noise, 0.25 * scale):
            found[t] = moved / scale
    return found


@pytest.mark.parametrize("seed", range(20))
def test_pasts_are_what_a_loop_over_the_steps_finds(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.attribution.baseline.BLOCK", 37)  # baselines reach over blocks
    draw = np.random.default_rng(seed)
    spread = draw.choice([0.01, 0.3, 2.0], size=(3, 1))
    values = np.exp(draw.normal(size=(3, 160)) * spread)
    values[:, draw.integers(0, 160) :] *= draw.choice([0.1, 1.0, 4.0])
    holes = draw.random(values.shape)
    for low, odd in ((0.0, np.nan), (0.1, np.inf), (0.12, 0.0)):
        values[(holes >= low) & (holes < low + (0.1 if np.isnan(odd) else 0.02))] = odd
    for name in ("loss", "input_rms"):
        np.testing.assert_allclose(ratio_deviation(values[0], name), left_slowly(values[0], name), rtol=1e-9)
    mean = values[1] - 1
    np.testing.assert_allclose(mean_deviation(mean, values[2]), shifted_slowly(mean, values[2]), rtol=1e-9)
