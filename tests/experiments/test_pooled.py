"""Revivals of dead units, pooled over seeds: what is read from a run, and what is estimated from it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from experiments.pooled import pooled, survival
from experiments.readings import revivals
from experiments.verdicts import find

#: Of each unit of one layer, window by window, whether it was silent.
SILENT = {
    0: [1, 1, 1, 1],  # seen dead for three windows after the first
    1: [0, 1, 0, 1],  # back after one; what comes later does not count
    2: [0, 0, 1, 1],  # seen for one
    3: [0, 0, 0, 1],  # never seen again
    4: [0, 0, 0, 0],  # never dead
    5: [1, 1, 0, 0],  # back after two
}


def test_how_long_the_dead_stay_dead() -> None:
    rows: list[dict[str, Any]] = [
        {
            "evidence": "stream",
            "step": 10 * (k + 1),
            "site": "a",
            "unit": unit,
            "state": "dead" if off else "active",
        }
        for unit, windows in SILENT.items()
        for k, off in enumerate(windows)
    ]
    run: Any = SimpleNamespace(read=lambda name, columns: pa.Table.from_pandas(pd.DataFrame(rows)[columns]))
    found = revivals(run, 3)
    assert [found[f"at_risk_1_{k}"] for k in (1, 2, 3)] == [4, 2, 1]
    assert [found[f"revived_1_{k}"] for k in (1, 2, 3)] == [1, 1, 0]
    assert survival("revived_1_", "at_risk_1_")(pd.DataFrame([found])) == pytest.approx(3 / 4 * 1 / 2)


def test_nothing_at_risk_is_no_estimate_and_no_seed() -> None:
    left = survival("d_", "n_")
    table = pd.DataFrame({"seed": range(12), "n_1": [10.0] * 8 + [0.0] * 4, "d_1": 0.0})
    assert np.isnan(left(table[table["seed"] > 7]))
    finding = find(pooled(table, left, {}, 0, label="x", at_least=0.9))
    assert (finding.word, finding.effect, finding.seeds, finding.lost) == ("supported", 1.0, 8, 0)
    none = find(pooled(table[table["seed"] > 7], left, {}, 0, label="x", at_least=0.9))
    assert (none.word, none.seeds) == ("undecided", 0)


def test_the_jackknife_has_the_spread_of_a_ratio_of_clusters() -> None:
    """With one time the estimate is a ratio; its linearisation (Cochran 1977) gives the same spread."""
    drawn = np.random.default_rng(0)
    n = drawn.integers(5, 40, 24)
    d = drawn.binomial(n, drawn.beta(2, 8, 24))
    table = pd.DataFrame({"seed": range(24), "n_1": n, "d_1": d})
    part = pooled(table, survival("d_", "n_"), {}, 0, label="x", at_least=0.9)
    ratio = d.sum() / n.sum()
    assert part.differences.mean() == pytest.approx(1 - ratio)
    assert part.differences.std(ddof=1) == pytest.approx(((d - ratio * n) / n.mean()).std(ddof=1), rel=0.1)
