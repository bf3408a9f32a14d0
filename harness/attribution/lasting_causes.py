"""Lasting causes: what was there from the start, and killed units that were not born dead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from harness.attribution.baseline import known_median
from harness.attribution.birth_causes import (
    LARGE,
    LARGE_INPUTS,
    are_tiny_or_alike,
    has_odd_inputs,
    largest_gain,
    reading,
)
from harness.attribution.event import EPISODE
from harness.attribution.evidence import Evidence
from harness.attribution.loss_rises import CALM, LONG_STEP
from harness.formats import place_words

LONGEST_STEP = 0.2  # ‖Δθ‖ / ‖θ‖ from which a single early step may kill by its length
LONG_LAYER_STEP = 0.5  # ‖Δw‖ / ‖w‖ of one matrix from which a single early step is long
LAYER_CALM = 0.02  # the same of usual steps, above which they are not short
VERY_LONG_STEP = 0.02  # the same, from which a penalty in the loss is indistinguishable from long steps
PENALTY = 0.1  # share of the first gradient's power from which a penalty is blamed
LATE_PENALTY = 0.3  # the same of a late step, in which the outputs need little of it
MOST_OF_IT = 0.9  # the same, from which it is blamed although steps are long
DOWNWARD = 0.7  # downward share of its pull on the biases from which a penalty closes units
NOT_UPWARD = 0.3  # the same, below which it opens them
STEEP_LOSS = 20.0  # norm of the gradient at the first outputs, from which the loss is far too steep
PULLED = 0.7  # share of their own bias in the units' fall, from which a penalty pulled it
MUCH_MOMENTUM = 0.97  # from which a gradient moves the parameters more than thirty times as far
LARGE_OUTPUTS = 5.0  # rms of the first outputs, from which the output layer's weights are too large
SOON = 100  # steps in which deaths follow from an event; a quarter of them must, unless it lasts
MUCH_DECAY = 0.02  # share of a parameter that decay takes in a step, from which it is blamed
STEADILY = 0.9  # rank correlation with the step of a size that grows all the time
ORDERED = 0.6  # correlation of the means of successive batches, from which inputs come in an order
ODD_INPUTS = 10  # times their usual size that inputs are in a bad batch
FEWEST = 30  # steps from which the order of the inputs can be told
RECENT = 50  # steps whose inputs may be among the latest that are kept
SWOLLEN = 2.0  # times their first size to which inputs have grown steadily
GROWN = 5.0  # times their first size to which what comes to a first layer has grown
FAR_TARGETS = 10.0  # rms of targets - outputs over that of the outputs (at least 1) that is far


def lasting_cause(
    shares: pd.DataFrame, evidence: Evidence, deaths: pd.Series, diverged: int | None = None
) -> str:
    """A cause present from the start that killed units not born dead, or made the training diverge."""
    layers, steps, loss = evidence.layers, evidence.steps, evidence.loss
    if are_behind(odd_steps(steps), deaths):
        return "bad_batch"
    if is_broken_from_start(steps, diverged):
        return "labels" if np.isfinite(first_of(steps, "output_rms")) else "weight_init"
    if grown_inputs(evidence):
        return "forward"
    if growth_of_inputs(steps) > SWOLLEN:
        return "input_shift"
    read = reading(layers)
    if has_odd_inputs(read).any():
        ordered = order_of_inputs(steps) > ORDERED and not read["input_rms"].gt(LARGE_INPUTS).any()
        return "input_shift" if ordered else "input_offset"
    if len(behind_idle_norms(layers)):
        return "norm_stats"
    if len(layers) and (largest_gain(layers) > LARGE or are_tiny_or_alike(layers)):
        return "weight_init"
    decay = steps["weight_decay"].abs().max() if len(steps) else 0.0
    a_step = known_median((steps["lr"] * steps["weight_decay"]).abs()) if decay > 0 else 0.0
    shrunk = mean(shares["decay"]) > 0.5 or known_median(layers["growth"]) < 0.7
    if decay > 0 and (shrunk or a_step > MUCH_DECAY):
        return "decay"
    if mean(shares["bias"]) > 0.4 and _fast_biases(steps):
        return "bias_lr"
    if has_far_targets(evidence):
        return "target_scale"
    moved = early_step(steps)
    long = moved >= LONG_STEP or longest_step(steps, deaths) >= LONG_STEP
    if long and first_of(steps, "output_grad_norm") > STEEP_LOSS:
        return "target_scale"
    if long and (large := large_from_start(steps)) != "unknown":
        return large
    # the weight of a penalty may have grown since the first step
    if loss.get("penalty") and mean(shares["bias"]) > PULLED:
        return "loss_penalty"
    if is_mostly_penalty(loss) or is_mostly_penalty(loss, "late_"):
        return "loss_penalty"  # the training does little else, and its steps are as long as that makes them
    if loss.get("penalty_share", 0.0) >= PENALTY and loss.get("penalty_down", 0.0) >= DOWNWARD:
        return "unknown" if moved >= VERY_LONG_STEP else "loss_penalty"
    late, down = loss.get("late_penalty_share", 0.0), loss.get("late_penalty_down", 0.0)
    if late >= LATE_PENALTY and down >= DOWNWARD and not moved >= VERY_LONG_STEP:
        return "loss_penalty"
    long = moved >= LONG_STEP or longest_step(steps, deaths) >= LONGEST_STEP
    long |= last_steps(steps, deaths, diverged) >= CALM
    long |= first_of(steps, "momentum") >= MUCH_MOMENTUM
    long |= longest_layer_step(steps, deaths, diverged) >= LONG_LAYER_STEP
    return "step_size" if long else "unknown"


def large_from_start(steps: pd.DataFrame) -> str:
    """The cause if the first outputs are large: the inputs if these are, else the weights."""
    if not first_of(steps, "output_rms") > LARGE_OUTPUTS:
        return "unknown"
    return "input_offset" if first_of(steps, "input_rms") > LARGE_INPUTS else "weight_init"


def is_mostly_penalty(loss: Mapping[str, Any], when: str = "") -> bool:
    """Whether a penalty makes nearly all of a step's gradient, and opens no units."""
    down = loss.get(f"{when}penalty_down", 0.5)
    return loss.get(f"{when}penalty_share", 0.0) >= MOST_OF_IT and down >= NOT_UPWARD


def is_broken_from_start(steps: pd.DataFrame, diverged: int | None) -> bool:
    """Whether the training diverged before its first step, though the inputs were finite."""
    return diverged is not None and diverged <= 1 and bool(np.isfinite(first_of(steps, "input_rms")))


def grown_inputs(evidence: Evidence) -> str:
    """That the first layers get far larger inputs than at first, though the model's own are as they were."""
    read = reading(evidence.layers)
    read = read[read["source"].eq("inputs")] if "source" in read else read
    then, now = read["input_rms"], read["input_rms_now"]
    grown = read[(now > GROWN * then) & (now > LARGE_INPUTS) & (now < np.inf)]
    rms = evidence.steps["input_rms"].to_numpy(float)
    rms = rms[np.isfinite(rms)]
    if grown.empty or len(rms) < 2 * EPISODE or rms[-RECENT:].max() > 2 * np.median(rms[:EPISODE]):
        return ""
    row = grown.iloc[0]
    place = f"what comes to {place_words(str(row['layer']))} grew from rms {row['input_rms']:.3g} to"
    return f"{place} {row['input_rms_now']:.3g}, though the model's inputs did not"


def last_steps(steps: pd.DataFrame, deaths: pd.Series, diverged: int | None) -> float:
    """Median ‖Δθ‖ / ‖θ‖ just before most deaths, or before the divergence; NaN if unknown."""
    before = _before_end(steps, deaths, diverged)
    ratio = (before["update_norm"] / before["weight_norm"]).to_numpy(float)
    ratio = ratio[np.isfinite(ratio) & (ratio > 0)]
    return float(np.median(ratio)) if len(ratio) else float("nan")


def _before_end(steps: pd.DataFrame, deaths: pd.Series, diverged: int | None) -> pd.DataFrame:
    """The steps just before most deaths, or before the divergence."""
    end = diverged if diverged is not None else float(deaths.median()) if len(deaths) else float("nan")
    return steps[(steps["step"] < end) & (steps["step"] >= end - 2 * EPISODE)]


def order_of_inputs(steps: pd.DataFrame) -> float:
    """Rank correlation of the inputs' mean in successive steps; about 0 if shuffled, NaN if unknown.

    By ranks, a few odd batches in a row make no order.
    """
    means = steps["input_mean"].to_numpy(float) if len(steps) else np.empty(0)
    means = means[np.isfinite(means)]
    if len(means) < FEWEST or not np.ptp(means) > 0:
        return float("nan")
    return _rank_correlation(means[:-1], means[1:])


def behind_idle_norms(layers: pd.DataFrame) -> pd.DataFrame:
    """The layers that get large inputs from a norm, whose statistics do not fit what comes to it."""
    if "source" not in layers:  # tables of earlier versions
        return layers[:0]
    return layers[layers["source"].eq("norm") & (layers["input_rms"] > LARGE_INPUTS)]


def growth_of_inputs(steps: pd.DataFrame) -> float:
    """Times their first size to which inputs have grown, if they grow all the time; else NaN."""
    rms = steps["input_rms"].to_numpy(float) if len(steps) else np.empty(0)
    rms = rms[np.isfinite(rms)]
    if len(rms) < FEWEST or not np.ptp(rms) > 0 or not rms[0] > 0:
        return float("nan")
    if not _rank_correlation(rms, np.arange(len(rms))) > STEADILY:
        return float("nan")
    return float(np.median(rms[-EPISODE:]) / np.median(rms[:EPISODE]))


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    first, second = (pd.Series(values).rank() for values in (a, b))
    with np.errstate(invalid="ignore", divide="ignore"):  # values that are all the same
        return float(np.corrcoef(first, second)[0, 1])


def odd_steps(steps: pd.DataFrame) -> np.ndarray:
    """Steps whose inputs are far larger than usual, again and again; empty if there are few, or many."""
    rms = steps["input_rms"].to_numpy(float) if len(steps) else np.empty(0)
    usual = float(np.nanmedian(rms)) if np.isfinite(rms).any() else 0.0
    odd = steps["step"].to_numpy(float)[rms > ODD_INPUTS * usual] if usual > 0 else np.empty(0)
    return odd if 3 <= len(odd) <= len(steps) / 5 else odd[:0]


def are_behind(odd: np.ndarray, deaths: pd.Series) -> bool:
    """Whether most deaths come soon after one of some steps."""
    times = deaths.to_numpy(float)
    last = odd[np.maximum(np.searchsorted(odd, times + 1, "right") - 1, 0)] if len(odd) else times
    soon = (last <= times + 1) & (times <= last + SOON)
    return len(odd) > 0 and len(times) > 0 and bool(soon.mean() > 0.5)


def has_far_targets(evidence: Evidence) -> bool:
    """Whether the first outputs missed their targets by far more than their own size."""
    loss = evidence.loss
    return bool(loss.get("target_error", 0.0) > FAR_TARGETS * max(1.0, loss.get("output_rms", 1.0)))


def first_of(steps: pd.DataFrame, column: str) -> float:
    """The value of a column in the first step; NaN if unknown."""
    return float(steps[column].iloc[0]) if column in steps and len(steps) else float("nan")


def early_step(steps: pd.DataFrame) -> float:
    """Median ‖Δθ‖ / ‖θ‖ of early steps, infinite if not finite; NaN if none was observed."""
    ratios = _early_steps(steps)
    return float(ratios.median()) if len(ratios) else float("nan")


def longest_step(steps: pd.DataFrame, deaths: pd.Series) -> float:
    """Largest ‖Δθ‖ / ‖θ‖ of early steps, since one may kill; the median if most units died later."""
    ratios = _early_steps(steps)
    late = len(deaths) and len(ratios) and float(deaths.median()) > ratios.index[-1] + EPISODE
    return early_step(steps) if late or ratios.empty else float(ratios.max())


def longest_layer_step(steps: pd.DataFrame, deaths: pd.Series, diverged: int | None) -> float:
    """Largest ‖Δw‖ / ‖w‖ of a matrix in an early step, which large embeddings hide from `longest_step`.

    NaN if it is unknown, or if steps had become short when most units died.
    """
    if "layer_move" not in steps:  # of earlier versions
        return float("nan")
    before = _before_end(steps, deaths, diverged)["layer_move"]
    longest = float(_early(steps)["layer_move"].max())
    return longest if known_median(before) >= LAYER_CALM else float("nan")


def _early(steps: pd.DataFrame) -> pd.DataFrame:
    moved = steps[steps["update_norm"].fillna(0.0) != 0]  # an agent counts steps before it learns
    return moved.head(max(20, len(moved) // 10)).set_index("step")


def _early_steps(steps: pd.DataFrame) -> pd.Series:
    steps = _early(steps)
    return (steps["update_norm"] / steps["weight_norm"]).mask(np.isinf(steps["update_norm"]), np.inf)


def _fast_biases(steps: pd.DataFrame) -> bool:
    """Whether biases had their own learning rate, well above the weights'."""
    ratio = (steps["lr_bias"] / steps["lr"]).replace([np.inf, -np.inf], np.nan).dropna()
    return bool(len(ratio) and ratio.median() > 3)


def mean(values: pd.Series) -> float:
    """The mean of the known values; 0 if there are none."""
    known = values.dropna()
    return float(known.mean()) if len(known) else 0.0
