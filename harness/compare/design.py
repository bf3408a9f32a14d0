"""Which runs are comparable: the factors that are held fixed, and means over repetitions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from harness.compare.frames import cells, codes, columns_of


def held(frame: pd.DataFrame, factor: str, by: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """The other factors that a comparison along `factor` holds fixed, and those that it cannot.

    A factor that determines the level of `factor` (they vary together) cannot be fixed while that varies; nor
    can one that is null at whole levels, such as the slope of a leaky activation at others.

    Args:
        frame: outcomes.
        factor: the factor that varies.
        by: factors that are fixed anyway.

    Example:
        >>> frame = pd.DataFrame({"optim.name": ["sgd", "adam"] * 2, "optim.lr": [0.1, 0.001] * 2,
        ...                       "bias.offset": [0, 0, -1, -1]})
        >>> held(frame, "optim.name")
        (['bias.offset'], ['optim.lr'])
    """
    levels = codes(frame[factor])[0]
    fixed, apart = [], []
    for name in columns_of(frame):
        if name == factor or name in by:
            continue
        index, values = codes(frame[name])
        if len(values) < 2:
            continue
        optional = values[0] is None and len(np.unique(levels[index > 0])) <= levels.max()
        pairs = len(np.unique(np.stack([index, levels]), axis=1).T)
        if optional or pairs == len(values):  # each of its values occurs with one level of the factor only
            apart.append(name)
        else:
            fixed.append(name)
    return fixed, apart


def seed_means(keys: dict[str, np.ndarray], y: np.ndarray) -> pd.DataFrame:
    """One row per combination of the keys: the mean of the runs that share it, such as repeated runs.

    Args:
        keys: name → integer codes, one per run.
        y: values, NaN for none; these are left out.

    Returns:
        The keys, and `y`.
    """
    kept = ~np.isnan(y)
    frame = pd.DataFrame({**{name: index[kept] for name, index in keys.items()}, "y": y[kept]})
    return frame.groupby(list(keys), sort=True)["y"].mean().reset_index()


def settings(frame: pd.DataFrame, by: Sequence[str]) -> list[tuple[tuple, np.ndarray]]:
    """Each setting of `by` that occurs, in order of its levels, with its rows."""
    if not len(by):
        return [((), np.arange(len(frame)))]
    levels = [codes(frame[name]) for name in by]
    cell = np.zeros(len(frame), np.int64)
    for index, values in levels:
        cell = cell * len(values) + index
    found = []
    for code in np.unique(cell):
        rows = np.flatnonzero(cell == code)
        found.append((tuple(values[index[rows[0]]] for index, values in levels), rows))
    return found


def matrix(rows: np.ndarray, columns: np.ndarray, y: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Means of y by row and column, NaN if there are none: (rows, columns)."""
    flat = rows * shape[1] + columns
    count = np.bincount(flat, minlength=shape[0] * shape[1])
    total = np.bincount(flat, weights=y, minlength=shape[0] * shape[1])
    with np.errstate(invalid="ignore", divide="ignore"):
        return (total / count).reshape(shape)


def seed_codes(frame: pd.DataFrame) -> tuple[np.ndarray, int]:
    """A code for the seed of every run, and the number of seeds."""
    seeds = cells(frame, ["seed"])
    return seeds, int(seeds.max(initial=-1)) + 1
