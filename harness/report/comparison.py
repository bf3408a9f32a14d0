"""What the console and the page tell of a sweep: compared once, before anything is drawn."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from harness import compare
from harness.compare.dose import numeric_axis
from harness.compare.frames import codes, columns_of, word
from harness.compare.words import alias_notes
from harness.report.plots.settings import key
from harness.store.runs import Runs

LEVELS = 8  # levels of a factor up to which each has a line of its own


@dataclass(frozen=True)
class Comparison:
    """A sweep, compared by all that varies in it.

    Attributes:
        frame: outcomes, one row per run.
        ranked: factors, the one with the largest part in the dead share first.
        ranking: their table; None without factors, or without a dead share.
        effects: of every factor; None likewise.
        sentences: what a colleague would say.
        notes: what must be known beside.
    """

    frame: pd.DataFrame
    ranked: list[str]
    ranking: pd.DataFrame | None = None
    effects: pd.DataFrame | None = None
    sentences: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def compared(runs: Runs) -> Comparison:
    """Compare the runs of a sweep by all that varies among them."""
    frame = compare.outcomes(runs)
    ranked = [name for name in columns_of(frame) if len(codes(frame[name])[1]) > 1]
    if not ranked or frame["dead"].isna().all():
        return Comparison(frame, ranked, sentences=compare.sentences(frame))
    ranking = compare.ranking(frame)
    alone = [str(term) for term in ranking["term"] if term in ranked]
    ranked = [*alone, *(name for name in ranked if name not in alone)]
    effects = pd.concat([compare.effects(frame, name) for name in ranked], ignore_index=True)
    criticals = [
        compare.critical(frame, name, strongest_other(frame, ranked, name)).assign(axis=name)
        for name in ranked
        if numeric_axis(frame, name)
    ]
    critical = pd.concat(criticals, ignore_index=True) if criticals else None
    told = compare.sentences(frame, effects=effects, ranking=ranking, critical=critical)
    return Comparison(frame, ranked, ranking, effects, told, alias_notes(compare.aliases(runs.table)))


def strongest_other(frame: pd.DataFrame, ranked: list[str], axis: str) -> tuple[str, ...]:
    """The strongest factor beside one that has few levels, if there is one."""
    rest = [name for name in ranked if name != axis and len(codes(frame[name])[1]) <= LEVELS]
    return tuple(rest[:1])


def by_setting(frame: pd.DataFrame, factors: list[str]) -> pd.DataFrame:
    """One row per setting, those with most dead units first: its runs, how they ended, and their means.

    Args:
        frame: outcomes.
        factors: that make a setting.

    Returns:
        The factors in words, runs, finished, diverged, failed, and of the finished the means dead,
        born_dead, died, accuracy and the lowest and highest dead share; NaN where none finished.

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
