"""The table of a prescription, for the console."""

from __future__ import annotations

from typing import Any

import pandas as pd
from rich.markup import escape
from rich.table import Table

from harness.formats import per_cent, points
from harness.report.console_parts import plain_table

HEADS = (
    *("cure", "stands for", "steps", "seeds", "time", "accuracy", "gain", "95 % interval"),
    *("dead", "diverged", "verdict"),
)
LEFT = frozenset({"cure", "stands for", "verdict"})


def prescription_view(table: pd.DataFrame) -> Table:
    """The arms of a run's prescription, those of the last round first.

    Args:
        table: table of a `Prescription`.
    """
    view = plain_table()
    for head in HEADS:
        view.add_column(head, justify="left" if head in LEFT else "right")
    for cells in prescription_rows(table):
        view.add_row(*(escape(cell) for cell in cells))
    return view


def prescription_rows(table: pd.DataFrame) -> list[list[str]]:
    """The cells of every arm, in the order of `HEADS`."""
    return [_cells(row) for row in table.to_dict("records")]


def _cells(row: dict[Any, Any]) -> list[str]:
    tried = pd.notna(row["gain"])
    return [
        str(row["cure"]),
        str(row["stands_for"]).partition(",")[0],
        f"{row['steps']:,}",
        str(row["seeds"]),
        f"{row['seconds']:.2g} s",
        per_cent(row["metric"]),
        points(row["gain"]) if tried else "",
        f"{points(row['low'])} to {points(row['high'])}" if pd.notna(row["low"]) else "",
        per_cent(row["dead"]),
        f"{row['diverged']} of {row['seeds']}" if row["diverged"] else "",
        str(row["verdict"]),
    ]
