"""Each arm at its own learning rate: some seeds choose it, the others judge."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from experiments.contrasts import Arm, rows_of

TUNING = 4  # seeds 0 to 3 choose, the others judge
RATE = "optim.lr"


def tuned(
    table: pd.DataFrame, arms: Mapping[str, Arm], outcome: str = "accuracy", *, least: bool = False
) -> dict[str, float]:
    """Name of the arm → the learning rate with the best mean outcome on the tuning seeds.

    A run without an outcome (it diverged) counts with the worst value: 0, or the largest that there is.
    Of equally good rates it is the smallest.

    Args:
        table: tidy, one row per run.
        arms: name → its runs at all rates.
        outcome: column of numbers.
        least: whether the least outcome is the best.

    Raises:
        ValueError: no tuning seed has such an arm.

    Example:
        >>> table = pd.DataFrame({"seed": [0, 0, 4], "optim.lr": [0.1, 1.0, 0.1]})
        >>> table["accuracy"] = [0.5, 0.9, 0.7]
        >>> tuned(table, {"all": {}}), judged(table)["accuracy"].tolist()
        ({'all': 1.0}, [0.7])
    """
    seeds = table[table["seed"] < TUNING]
    worst = seeds[outcome].max() if least else 0.0
    filled = seeds.assign(**{outcome: seeds[outcome].fillna(worst)})
    means = {name: rows_of(filled, arm).groupby(RATE)[outcome].mean() for name, arm in arms.items()}
    best = {name: mean.argmin() if least else mean.argmax() for name, mean in means.items()}
    return {name: float(mean.index.to_numpy(float)[best[name]]) for name, mean in means.items()}


def judged(table: pd.DataFrame) -> pd.DataFrame:
    """The runs of the seeds that judge; all, where there are only tuning seeds (the budget toy)."""
    others = table["seed"] >= TUNING
    return table[others] if others.any() else table


def chosen(rates: Mapping[str, float]) -> str:
    """The learning rates that were chosen, in a sentence."""
    return f"Learning rates chosen: {', '.join(f'{name} {rate:g}' for name, rate in rates.items())}."
