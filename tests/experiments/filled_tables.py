"""Made-up tables: the runs of a claim as its sweeps have them, with outcomes that nobody trained for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.budgets import specs
from experiments.claim import Claim
from harness.config import flatten, to_mapping

Row = Mapping[str, Any]
Outcomes = Callable[[Row], Mapping[str, float]]
DEFAULTS = {
    "dead": 0.05,
    "born_dead": 0.05,
    "died": 0.02,
    "accuracy": 0.9,
    "diverged": 0.0,
    "test_loss": 0.1,
    "loss": 0.1,
    "revived": 0.0,
}


def when(of: Callable[[Row], bool], outcome: str, yes: float, no: float = 0.05) -> Outcomes:
    """The outcome is `yes` in the runs of an arm, `no` in all others."""
    return lambda row: {outcome: yes if of(row) else no}


def several(*of: Outcomes) -> Outcomes:
    return lambda row: {key: value for one in of for key, value in one(row).items()}


def always(**outcomes: float) -> Outcomes:
    return lambda row: outcomes


def skeleton(claim: Claim) -> pd.DataFrame:
    """One row per run of the small budget: sweep, seed, status, and every key of the configuration."""
    rows = [
        {"sweep": name, "status": "finished", **DEFAULTS, **flatten(to_mapping(spec))}
        for name, spec in specs(claim, "small", Path("x"))
    ]
    return pd.DataFrame(rows)


def filled(rows: pd.DataFrame, outcomes: Outcomes, noise: float = 0.003) -> pd.DataFrame:
    """The rows with outcomes, and a little noise that differs from row to row."""
    drawn = np.random.default_rng(7)
    told = [dict(outcomes(row)) for row in rows.to_dict("records")]  # type: ignore[arg-type]
    values = pd.DataFrame(told, index=rows.index)
    for name in values:
        if name != "diverged":
            values[name] = values[name] + drawn.normal(0, noise, len(values))
    return rows.drop(columns=[name for name in values if name in rows]).join(values)


def torn(yes: pd.DataFrame, no: pd.DataFrame) -> pd.DataFrame:
    """One seed says yes, the next one no."""
    return pd.concat([yes[yes["seed"] % 2 == 0], no[no["seed"] % 2 == 1]], ignore_index=True)
