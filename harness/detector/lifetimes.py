"""Lifetimes: for each unit whether it was born dead, when it died and when it came back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd


def lifetimes(history: pd.DataFrame) -> pd.DataFrame:
    """Births and deaths of every unit, from the censuses of one kind of evidence.

    With censuses on a probe, these are used alone: the same inputs every time, from before the first step.
    Otherwise the training stream's are, and born dead means dead in the first of them. Censuses in which a
    unit was not observed, or not finite, say nothing about it.

    Args:
        history: censuses with the columns evidence, step, site, unit and state.

    Returns:
        One row per site × unit: born_dead, died_at (step of the first census at which it is dead after
        having been alive, NA if never), revived_at (likewise alive after having been dead), deaths (how
        often it died), dead_now (dead in its last census), censuses (in which it was observed), first
        (step of the first of them).

    Raises:
        ValueError: a needed column is missing.

    Example:
        >>> states = ["active", "dead", "active", "dead"]
        >>> h = pd.DataFrame({"step": [0, 10, 20, 30], "state": states})
        >>> h = h.assign(evidence="stream", site="a", unit=0)
        >>> lifetimes(h)[["died_at", "revived_at", "deaths"]].iloc[0].tolist()
        [10, 20, 2]
    """
    missing = [c for c in ("evidence", "step", "site", "unit", "state") if c not in history]
    if missing:
        raise ValueError(f"expected a history of censuses, but the columns {', '.join(missing)} are missing")
    rows = one_evidence(history)
    state = rows["state"].to_numpy(dtype=object)
    told = (state != "unobserved") & (state != "non_finite")  # the others are neither dead nor alive
    site, names = pd.factorize(rows["site"].to_numpy(dtype=object)[told])
    unit, step, dead = rows["unit"].to_numpy()[told], rows["step"].to_numpy()[told], state[told] == "dead"
    order = np.lexsort((step, unit, site))
    site, unit, step, dead = site[order], unit[order], step[order], dead[order].astype(bool)
    first = np.ones(len(site), bool)
    first[1:] = (site[1:] != site[:-1]) | (unit[1:] != unit[:-1])
    before = np.concatenate([[False], dead[:-1]])
    died, revived = dead & ~before & ~first, ~dead & before & ~first
    group = np.cumsum(first) - 1
    starts = np.flatnonzero(first)
    last = np.append(starts[1:], len(site)) - 1 if len(site) else starts
    return pd.DataFrame(
        {
            "site": names[site[starts]].astype(object),
            "unit": unit[starts],
            "born_dead": dead[starts],
            "died_at": _first_step(died, group, step, len(starts)),
            "revived_at": _first_step(revived, group, step, len(starts)),
            "deaths": np.bincount(group[died], minlength=len(starts)),
            "dead_now": dead[last],
            "censuses": np.bincount(group, minlength=len(starts)) if len(site) else starts,
            "first": step[starts],
        }
    )


def one_evidence(history: pd.DataFrame) -> pd.DataFrame:
    """The probe's censuses if there are any, else the stream's."""
    probe = history["evidence"] == "probe"
    return history[probe] if probe.any() else history


def _first_step(event: np.ndarray, group: np.ndarray, step: np.ndarray, units: int) -> Any:
    at, never = np.zeros(units, np.int64), np.ones(units, bool)
    where = np.flatnonzero(event)[::-1]  # the earliest is written last
    at[group[where]], never[group[where]] = step[where], False
    return pd.arrays.IntegerArray(at, never)
