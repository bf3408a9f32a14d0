"""Phase diagrams: an outcome over two factors."""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.compare.design import seed_codes, seed_means
from harness.compare.frames import codes, need, tally, values


def phase(frame: pd.DataFrame, x: str, y: str, outcome: str = "dead") -> pd.DataFrame:
    """The mean outcome in every cell of two factors.

    Args:
        frame: as returned by `harness.compare.outcomes`.
        x: a factor, of numbers or words.
        y: another one.
        outcome: dead, born_dead, died, revived, accuracy or diverged.

    Returns:
        One row per cell of the full grid, in order of the levels: columns named like x and y, mean (over
        seeds; NaN, never 0, if no run has the outcome), seeds, runs (0 for a cell that was not run),
        diverged, failed, unfinished.

    Raises:
        ValueError: unknown factor or outcome, a factor that does not vary, or the same factor twice.

    Example:
        >>> frame = pd.DataFrame({"status": ["finished", "diverged", "finished"], "seed": 0,
        ...     "optim.lr": [0.1, 1.0, 0.1], "bias.offset": [0, 0, -1], "dead": [0.1, np.nan, 0.7]})
        >>> phase(frame, "optim.lr", "bias.offset")[["mean", "runs", "diverged"]].values.tolist()
        [[0.7, 1.0, 0.0], [0.1, 1.0, 0.0], [nan, 0.0, 0.0], [nan, 1.0, 1.0]]
    """
    if x == y:
        raise ValueError(f"y: expected another factor than x, but both are {x}")
    need(frame, x, argument="x")
    need(frame, y, argument="y")
    (column, across), (row, up) = codes(frame[x]), codes(frame[y])
    status, measured = frame["status"].to_numpy(object), values(frame, outcome)
    cell = column * len(up) + row
    means = seed_means({"cell": cell, "seed": seed_codes(frame)[0]}, measured).groupby("cell")["y"]
    mean, seeds = means.mean().to_dict(), means.size().to_dict()
    order = np.argsort(cell, kind="stable")
    ends = np.searchsorted(cell[order], np.arange(len(across) * len(up) + 1))
    rows = []
    for k in range(len(across) * len(up)):
        rows.append(
            {
                x: across[k // len(up)],
                y: up[k % len(up)],
                "mean": mean.get(k, np.nan),
                "seeds": seeds.get(k, 0),
                **tally(status[order[ends[k] : ends[k + 1]]]),
            }
        )
    return pd.DataFrame(rows)
