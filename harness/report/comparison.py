"""The comparison behind the console and the page of a sweep, made once."""

from __future__ import annotations

import pandas as pd

from harness.compare.comparison import RUNS, Comparison, compare_runs
from harness.compare.frames import codes, columns_of, outcomes, word
from harness.compare.life_tables import lives
from harness.compare.summary_text import sentences
from harness.report.plots.settings import key
from harness.store.runs import Runs

LEVELS = 8  # largest number of levels of a factor that get a line each


def compared(runs: Runs) -> Comparison:
    """Compare the runs of a sweep by everything that varies among them, even if it is only the seed."""
    frame = outcomes(runs)
    if varying(frame):
        return compare_runs(runs)
    life_table = lives(runs) if len(runs) <= RUNS else None
    return Comparison(frame, None, None, None, None, None, life_table, sentences(frame), [])


def varying(frame: pd.DataFrame) -> list[str]:
    """The factors that have more than one level."""
    return [name for name in columns_of(frame) if len(codes(frame[name])[1]) > 1]


def ranked_factors(found: Comparison) -> list[str]:
    """The factors, ordered by their share of the dead share's variance."""
    swept = varying(found.outcomes)
    if found.ranking is None:
        return swept
    alone = [str(term) for term in found.ranking["term"] if term in swept]
    return [*alone, *(name for name in swept if name not in alone)]


def strongest_other(frame: pd.DataFrame, ranked: list[str], axis: str) -> tuple[str, ...]:
    """The strongest factor besides `axis` with few levels, if there is one."""
    rest = [name for name in ranked if name != axis and len(codes(frame[name])[1]) <= LEVELS]
    return tuple(rest[:1])


def by_setting(frame: pd.DataFrame, factors: list[str]) -> pd.DataFrame:
    """One row per setting, most dead units first: its runs, how they ended, and their means.

    Args:
        frame: outcomes.
        factors: the factors that define a setting.

    Returns:
        The factors in words, runs, finished, diverged, failed, the means dead, born_dead, died, accuracy of
        the finished runs, and their lowest and highest dead share; NaN if none finished.

    Example:
        >>> f = pd.DataFrame({"optim.lr": [0.1, 1.0], "status": ["finished", "diverged"]})
        >>> f = f.assign(dead=[0.2, float("nan")], born_dead=0.1, died=0.1, accuracy=0.9)
        >>> by_setting(f, ["optim.lr"])[["optim.lr", "runs", "diverged", "dead"]].values.tolist()
        [['1', 1, 1, nan], ['0.1', 1, 0, 0.2]]
    """
    groups = [frame[name].map(word) for name in factors]
    table = pd.DataFrame({"runs": frame.groupby(groups, sort=False).size()})
    for state in ("finished", "diverged", "failed"):
        table[state] = (frame["status"] == state).groupby(groups, sort=False).sum()
    for name in ("dead", "born_dead", "died", "accuracy"):
        table[name] = frame[name].groupby(groups, sort=False).mean()
    dead = frame["dead"].groupby(groups, sort=False)
    table["lowest_dead"], table["highest_dead"] = dead.min(), dead.max()
    table = table.sort_values("dead", ascending=False, kind="stable", na_position="first").reset_index()
    return table.rename(columns={name: key(name) for name in factors})
