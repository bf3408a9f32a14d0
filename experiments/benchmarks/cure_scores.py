"""When a faulty training counts as cured, and how the results of a benchmark of cures are printed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

EFFECT = 0.1  # of the dead share beyond the twin's, from which a fault had an effect


class Score(NamedTuple):
    """How a training ended."""

    accuracy: float
    dead: float
    diverged: bool


def cured(after: Score, ill: Score, twin: Score) -> bool:
    """Whether at least 95 % of the twin's gain is reached, and at most 5 points more are dead than in it."""
    gain = max(0.0, twin.accuracy - ill.accuracy)
    enough = after.accuracy >= ill.accuracy + 0.95 * gain - 0.01 * (gain == 0)
    return enough and after.dead <= twin.dead + 0.05


def print_results(results: pd.DataFrame, by: Sequence[str], always: Sequence[str]) -> None:
    """Print a row per fault, worst first, and the totals.

    Args:
        results: one row per training: the columns `by`, label (of the diagnosis), effect; of the effective
            ones also cure, cured, and a column per cure that is always the same.
        by: columns that name a fault; "healthy" is none.
        always: names of the cures that are always the same.
    """
    console = Console(highlight=False, width=140)
    results = results.reindex(columns=[*dict.fromkeys((*results, "cured", "cure", "label"))])
    table = Table(title="Cured by what was recommended, and by cures that are always the same; worst first")
    for name in ("fault", "runs", "effective", "cured", *always, "recommended"):
        table.add_column(name, justify="left" if name in ("fault", "recommended") else "right")
    ill, healthy = (results[results["fault"].eq("healthy") == well] for well in (False, True))
    rows = []
    for fault, group in ill.groupby(list(by), sort=False):
        hit = group[group["effect"]]
        names = hit["cure"].fillna("").replace("", "none").value_counts() if len(hit) else {}
        counts = [
            str(int(hit[name].sum())) if len(hit) and name in hit else "" for name in ("cured", *always)
        ]
        recommended = ", ".join(f"{name} {count}" for name, count in names.items())
        share = float(hit["cured"].mean()) if len(hit) else 2.0
        words = ", ".join(map(str, fault)) if isinstance(fault, tuple) else str(fault)
        rows.append((share, (words, str(len(group)), str(len(hit)), *counts, recommended)))
    for _, row in sorted(rows, key=lambda one: one[0]):
        table.add_row(*row)
    console.print(table)
    hit = ill[ill["effect"]]
    right = binomtest(int(hit["cured"].sum()), max(1, len(hit)))
    interval = right.proportion_ci()
    console.print(
        f"cured: {int(hit['cured'].sum())} of {len(hit)} ({100 * right.statistic:.1f} %, 95 % interval "
        f"{100 * interval.low:.1f} to {100 * interval.high:.1f}); "
        + "; ".join(f"always {name}: {int(hit[name].sum())}" for name in always if name in hit)
        + f"; healthy with nothing to cure: {int(healthy['label'].eq('none').sum())} of {len(healthy)}"
    )
