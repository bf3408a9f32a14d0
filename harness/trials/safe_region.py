"""`prescribe` for a sweep: which settings are safe, and which new runs would be most informative."""

from __future__ import annotations

import math
import shlex
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.compare.frames import factors, outcomes
from harness.config import ConfigError
from harness.config.command import merged, overrides_of, place
from harness.detector.verdict import HEALTHY
from harness.formats import per_cent
from harness.store.runs import Runs

FEWEST = 4  # least number of settings to fit a surface
MOST = 4  # largest number of numeric factors of a surface
FINER = 9  # candidate values per factor, including both ends of its range


@dataclass(frozen=True)
class Region:
    """The safe settings of a sweep.

    Attributes:
        table: one row per setting: the factors, runs, dead (mean share; a diverged run counts as 1), metric
            (mean accuracy; a diverged run counts as 0), diverged, safe.
        command: trains the (up to 16) most informative new runs; "" if too few settings were tried, if no
            numeric factor varied or more than four did, or if the runs cannot be written as a command.
        text: summary in words.
    """

    table: pd.DataFrame
    command: str
    text: str

    def __str__(self) -> str:
        return "\n".join(filter(None, (self.text, self.command)))


def safe_region(runs: Runs, folder: Path, dead: float = HEALTHY, within: float = 0.02) -> Region:
    """Find the safe settings of a sweep from its stored results.

    A setting is safe if its mean dead share over the seeds is at most `dead`, its accuracy is near the best
    setting's, and no run diverged. A Gaussian process over the numeric factors proposes the next runs: the
    grid at which its estimate of the dead share is least certain.

    Args:
        runs: the runs of one sweep.
        folder: folder of the sweep, used in the command.
        dead: largest safe share of dead units.
        within: largest safe distance below the best accuracy.

    Raises:
        ValueError: nothing was varied but the seed, or no run has a result.
    """
    frame = outcomes(runs)
    names = factors(frame)
    done = frame[frame["status"].isin(("finished", "diverged"))]
    if not names or done.empty:
        what = "no run has a result" if names else "nothing was varied but the seed"
        raise ValueError(f"prescribe: expected a sweep over settings, but {what}")
    bad = done["status"].eq("diverged")
    done = done.assign(
        dead=done["dead"].mask(bad, 1.0), metric=done["accuracy"].mask(bad, 0.0), diverged=bad.astype(int)
    )
    grouped = done.groupby(names, dropna=False, sort=True)
    table = grouped.agg(
        runs=("run", "size"), dead=("dead", "mean"), metric=("metric", "mean"), diverged=("diverged", "sum")
    ).reset_index()
    best = float(table["metric"].max())
    table["safe"] = table["dead"].le(dead) & table["metric"].ge(best - within) & table["diverged"].eq(0)
    numbers = [n for n in names if _is_number(table[n]) and table[n].nunique() > 1]
    words = [n for n in names if n not in numbers]
    return Region(
        table, _next(runs, table, numbers, words, folder), _summary(table, numbers, words, best, dead, within)
    )


def _is_number(levels: pd.Series) -> bool:
    """Whether all levels of a factor are numbers; `null` beside numbers makes them names."""
    return pd.api.types.is_numeric_dtype(levels) and bool(levels.notna().all())


def _summary(
    table: pd.DataFrame, numbers: list[str], words: list[str], best: float, dead: float, within: float
) -> str:
    safe = table[table["safe"]]
    rule = (
        f"at most {per_cent(dead)} of the units dead, accuracy within {100 * within:g} points of the best "
        f"({per_cent(best)}), none diverged"
    )
    if safe.empty:
        return f"None of the {len(table)} settings is safe ({rule})."
    verb = "is" if len(safe) == 1 else "are"
    lines = [f"{len(safe)} of {len(table)} settings {verb} safe ({rule})."]
    for level, group in safe.groupby(words, sort=True, dropna=False) if words else [((), safe)]:
        named = dict(zip(words, level, strict=True)) if words else {}
        where = ", ".join(_word(name, value) for name, value in named.items())
        spans = [f"{n} {_span(group[n])}" for n in numbers]
        whole = _of(table, named)
        full = all(
            bool(row["safe"])
            for row in whole.to_dict("records")
            if all(group[n].min() <= row[n] <= group[n].max() for n in numbers)
        )
        note = "" if full else " (not every combination: see the table)"
        lines.append(f"{where + ': ' if where else ''}{', '.join(spans) or 'safe'}{note}.")
    return "\n".join(lines)


def _span(values: pd.Series) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _word(name: str, value: Any) -> str:
    return f"{name.removesuffix('.name')}={'null' if pd.isna(value) else value}"


def _of(table: pd.DataFrame, named: dict[str, Any]) -> pd.DataFrame:
    for name, value in named.items():
        table = table[table[name].isna() if pd.isna(value) else table[name].eq(value)]
    return table


def _next(runs: Runs, table: pd.DataFrame, numbers: list[str], words: list[str], folder: Path) -> str:
    """Return the command that trains the grid of runs at which the fitted surface is least certain."""
    groups = [((), table)] if not words else list(table.groupby(words, sort=True, dropna=False))
    fitted = [
        (level, *found)
        for level, group in groups
        if numbers and len(group) >= FEWEST and (found := _least_known(group, numbers)) is not None
    ]
    if not fitted:
        return ""
    level, grid, _ = max(fitted, key=lambda one: one[2])
    named = dict(zip(words, level, strict=True))
    first = next(run for run in runs if run.config)
    try:
        base = overrides_of(first.config)
    except ConfigError:  # a user-defined group, or a user's own training loop
        return ""
    changes = [_word(name, value) for name, value in named.items()]
    changes += [f"{name}={','.join(f'{v:.4g}' for v in values)}" for name, values in grid.items()]
    return shlex.join(["harness", "-m", *merged(base, changes), place(str(folder))])


def _least_known(group: pd.DataFrame, numbers: list[str]) -> tuple[dict[str, list[float]], float] | None:
    """Return the values where a Gaussian process is least certain of the dead share, and how uncertain."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    varied = [name for name in numbers if group[name].nunique() > 1]
    if not varied or len(varied) > MOST:
        return None
    scales = {name: _Scale.of(group[name]) for name in varied}
    x = np.column_stack([scales[name].inside(group[name].to_numpy(float)) for name in varied])
    lengths: Any = np.full(len(varied), 0.3)
    kernel = ConstantKernel(0.1) * Matern(lengths, (0.05, 10), nu=2.5) + WhiteKernel(1e-3)
    process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        process.fit(x, group["dead"].to_numpy(float))
    steps = np.linspace(0, 1, FINER)
    points = np.array(list(product(steps, repeat=len(varied))))
    mean, deviation = (np.asarray(part) for part in process.predict(points, return_std=True)[:2])
    near = np.sqrt(np.clip(mean * (1 - mean), 0.01, None))  # weights the edge between dead and alive
    unsure = (deviation * near).reshape([FINER] * len(varied))
    grid = {}
    for axis, (name, count) in enumerate(zip(varied, _counts(len(varied)), strict=True)):
        others = tuple(k for k in range(len(varied)) if k != axis)
        chosen = np.sort(np.argsort(-unsure.mean(axis=others), kind="stable")[:count])
        grid[name] = [scales[name].outside(float(steps[k])) for k in chosen]
    return grid, float(unsure.mean())


def _counts(numbers: int) -> Sequence[int]:
    """How many values of each factor to try: 16 runs in total, but all nine values of a single factor.

    Example:
        >>> [_counts(n) for n in (1, 2, 3, 4)]
        [[9], [4, 4], [4, 2, 2], [2, 2, 2, 2]]
    """
    return ([FINER], [4, 4], [4, 2, 2], [2, 2, 2, 2])[numbers - 1]


@dataclass(frozen=True)
class _Scale:
    """Maps a factor's range to [0, 1], on a log scale if all values are positive and span a decade."""

    low: float
    high: float
    log: bool

    @classmethod
    def of(cls, values: pd.Series) -> _Scale:
        low, high = float(values.min()), float(values.max())
        log = low > 0 and high >= 10 * low
        return cls(math.log(low), math.log(high), True) if log else cls(low, high, False)

    def inside(self, values: np.ndarray) -> np.ndarray:
        return ((np.log(values) if self.log else values) - self.low) / (self.high - self.low)

    def outside(self, share: float) -> float:
        value = self.low + share * (self.high - self.low)
        return math.exp(value) if self.log else value
