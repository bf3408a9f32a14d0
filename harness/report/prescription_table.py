"""The table of a prescription, for the console."""

from __future__ import annotations

from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from harness.formats import per_cent, points

HEADS = ("cure", "stands for", "steps", "metric", "gain", "95 % interval", "dead", "diverged", "verdict")
LEFT = frozenset({"cure", "stands for", "verdict"})


def prescription_view(table: pd.DataFrame, metric: str = "accuracy") -> Table:
    """The arms of a prescription, those of the last round first.

    Args:
        table: of a `Prescription`.
        metric: what was judged by.
    """
    view = Table(box=SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)
    for head in HEADS:
        view.add_column(metric if head == "metric" else head, justify="left" if head in LEFT else "right")
    for cells in prescription_rows(table):
        view.add_row(*(escape(cell) for cell in cells))
    return view


def prescription_rows(table: pd.DataFrame) -> list[list[str]]:
    """The cells of every arm, in the order of `HEADS`."""
    return [_cells(row) for row in table.to_dict("records")]


def _cells(row: dict[Any, Any]) -> list[str]:
    sure = pd.notna(row["gain"])
    return [
        str(row["cure"]),
        str(row["stands_for"]).partition(",")[0],
        f"{row['steps']:,}",
        per_cent(row["metric"]),
        points(row["gain"]) if sure else "",
        f"{points(row['low'])} to {points(row['high'])}" if sure else "",
        per_cent(row["dead"]),
        f"{row['diverged']} of {row['seeds']}" if row["diverged"] else "",
        str(row["verdict"]),
    ]
