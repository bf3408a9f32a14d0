"""`harness-tools compare`: from the command line to printed and written tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.compare.comparison import Comparison, compare_runs
from harness.compare.frames import OUTCOMES

if TYPE_CHECKING:
    from harness.store.runs import Runs

TABLES = ("outcomes", "effects", "ranking", "critical", "survival", "logrank")


def run(
    paths: Sequence[Path],
    factor: str | None,
    by: Sequence[str],
    measures: Sequence[str],
    baseline: str | None,
    share: float,
    correction: str,
    census: bool | None,
) -> Comparison:
    """Compare the runs in some folders.

    Raises:
        ValueError, FileNotFoundError: the request cannot be fulfilled.
    """
    runs = gathered(paths)
    table = runs.table
    factor = _column(factor, table, "factor") if factor else None
    by = [_column(name, table, "by") for name in by]
    return compare_runs(
        runs,
        factor,
        by,
        measures or OUTCOMES,
        baseline=baseline,
        share=share,
        correction=correction,
        census=census,
    )


def gathered(paths: Sequence[Path]) -> Runs:
    """The runs of several folders, each once.

    Raises:
        FileNotFoundError: a folder does not exist.
        ValueError: there is no run in any of them.
    """
    from harness.store.runs import open_runs, without_copies

    found = {run.path.resolve(): run for path in paths for run in open_runs(path)}
    if not found:
        places = ", ".join(map(str, paths))
        raise ValueError(f"there is no run in {places} (a run has config.yaml and status.json)")
    if all(run.damage for run in found.values()):
        raise ValueError("; ".join(run.damage for run in found.values()))
    return without_copies(found.values())


def tables_of(found: Comparison) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """The tables of a comparison by name, and the facts written next to them."""
    tables = {name: table for name in TABLES if (table := getattr(found, name)) is not None}
    ranked = {} if found.ranking is None else {"ranking_of": found.ranking.attrs}
    return tables, {"sentences": found.sentences, "notes": found.notes, **ranked}


def _column(name: str, table: pd.DataFrame, option: str) -> str:
    """A column of the configuration, which may be abbreviated: `activation` is `activation.name`.

    Raises:
        ValueError: there is none; the message suggests similar names and lists what varies.
    """
    from harness.compare.frames import factors
    from harness.config.errors import did_you_mean

    if f"{name}.name" in table:
        return f"{name}.name"
    measured = ("final.", "last.")
    if name in table and not name.startswith(measured) and name not in ("run", "path", "status"):
        return name
    known = [str(c) for c in table.columns if "." in str(c) and not str(c).startswith(measured)]
    swept = ", ".join(factors(table)) or "nothing but the seed"
    hint = did_you_mean(name, known) or ""
    raise ValueError(f"{option}: there is no column {name!r}. {hint} What varies: {swept}".replace("  ", " "))
