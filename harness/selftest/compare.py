"""Differences between a census and the truth: counts, states and silences exactly, others to five digits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

KEY = ["step", "site", "unit"]
EXACT = ("n", "active", "non_finite", "state", "silent_for")
NEAR = ("rate", "rate_upper", "mean", "std", "max", "grad_rms", "grad_norm")


class Difference(NamedTuple):
    """One deviation from the truth."""

    where: str
    expected: str
    got: str


def differences(
    actual: pd.DataFrame, true: pd.DataFrame, *, skip: Iterable[str] = (), rtol: float = 1e-5
) -> list[Difference]:
    """Every cell in which two censuses differ.

    Args:
        actual: census from a Recorder, with rows in any order.
        true: the slow truth.
        skip: columns that are not compared.
        rtol: relative tolerance of columns that are not counts.

    Example:
        >>> from harness.selftest.truth import COLUMNS
        >>> row = dict.fromkeys(COLUMNS, 0) | {"site": "act", "n": 9, "active": 2, "state": "active"}
        >>> truth = pd.DataFrame([row])
        >>> differences(truth.assign(active=3), truth)
        [Difference(where='step 0, act, unit 0: active', expected='2', got='3')]
    """
    skipped = set(skip)
    got = actual.sort_values(KEY, kind="stable").reset_index(drop=True)
    want = true.sort_values(KEY, kind="stable").reset_index(drop=True)
    if [*got[KEY].itertuples(index=False)] != [*want[KEY].itertuples(index=False)]:
        return [Difference("rows", _rows(want), _rows(got))]
    found: list[Difference] = []
    observed = (want["n"] > 0).to_numpy()
    scale = np.nan_to_num((want["mean"].abs() + want["std"]).to_numpy(dtype=float))
    for column in (*EXACT, *NEAR):
        if column in skipped:
            continue
        if column in EXACT:
            same = got[column].to_numpy() == want[column].to_numpy()
            same |= ~observed & (column == "silent_for")
        else:
            a, b = got[column].to_numpy(dtype=float), want[column].to_numpy(dtype=float)
            close = 0.1 * rtol * scale if column in ("mean", "std") else 1e-12
            with np.errstate(invalid="ignore"):
                near = np.abs(a - b) <= close + rtol * np.abs(b)
            same = near | (np.isnan(a) & np.isnan(b)) | (a == b)
        for i in np.flatnonzero(~np.asarray(same, dtype=bool)):
            where = f"step {want['step'][i]}, {want['site'][i]}, unit {want['unit'][i]}: {column}"
            found.append(Difference(where, _shown(want[column][i]), _shown(got[column][i])))
    return found


def assert_same_census(actual: pd.DataFrame, true: pd.DataFrame, *, skip: Iterable[str] = ()) -> None:
    """Raise AssertionError with the first differences, if there are any."""
    found = differences(actual, true, skip=skip)
    if found:
        lines = "\n".join(f"{d.where}: expected {d.expected}, got {d.got}" for d in found[:12])
        raise AssertionError(f"{len(found)} differences\n{lines}")


def _rows(census: pd.DataFrame) -> str:
    sizes = census.groupby(["step", "site"], sort=False)["unit"].count()
    return ", ".join(f"step {step} {site} ({units})" for (step, site), units in sizes.items())  # type: ignore[misc]


def _shown(value: Any) -> str:
    return f"{value:.7g}" if isinstance(value, float) else str(value)
