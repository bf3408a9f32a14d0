"""`harness-tools compare`: from what was typed to what is printed and written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.compare.comparison import Comparison, compare_runs
from harness.compare.frames import OUTCOMES
from harness.report.export import inert
from harness.store.files import typed, write_json

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
        ValueError, FileNotFoundError: what was typed cannot be done.
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
        FileNotFoundError: no such folder.
        ValueError: no run in any.
    """
    from harness.store.runs import Runs, open_runs

    found = {run.path.resolve(): run for path in paths for run in open_runs(path)}
    if not found:
        places = ", ".join(map(str, paths))
        raise ValueError(f"there is no run in {places} (a run has config.yaml and status.json)")
    if all(run.damage for run in found.values()):
        raise ValueError("; ".join(run.damage for run in found.values()))
    return Runs(list(found.values()))


def write(found: Comparison, json: Path | None, csv: Path | None) -> list[Path]:
    """Write all tables: as one JSON file, as CSV files in a folder, or both.

    Raises:
        OSError: a place that cannot be written to.
    """
    tables = {name: table for name in TABLES if (table := getattr(found, name)) is not None}
    written = []
    if json is not None:
        facts: dict[str, Any] = {"sentences": found.sentences, "notes": found.notes}
        facts |= {name: [_plain(row) for row in table.to_dict("records")] for name, table in tables.items()}
        if found.ranking is not None:
            facts["ranking_of"] = _plain(found.ranking.attrs)
        write_json(json, facts, typed)
        written.append(json)
    if csv is not None:
        csv.mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            path = csv / f"{name}.csv"
            with typed(path) as part:
                inert(table).to_csv(part, index=False)
            written.append(path)
    return written


def _column(name: str, table: pd.DataFrame, option: str) -> str:
    """A column of the configuration, as it may be typed: `activation` is `activation.name`.

    Raises:
        ValueError: there is none; with what is near, and what varies.
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


def _plain(value: Any) -> Any:
    """JSON's values; null for what is not a finite number, "inf" or "-inf" where that is an answer."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value
