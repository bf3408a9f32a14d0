"""Console view of a run: a table of sites in the style of torchinfo, and the verdict in plain words."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from textwrap import fill
from typing import Any

import pandas as pd
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from harness.detector.counts import INPUTS, head
from harness.detector.states import Thresholds
from harness.detector.verdict import HEALTHY, Verdict, site_table, verdict
from harness.formats import dead_share_text
from harness.report.console_parts import plain_table

EXPENDABLE = ("dead", "always_on", "gradient", "median_rate", "rare", "starved", "revived")
COUNTS = ("dead", "born_dead", "died", "revived", "rare", "starved", "non_finite", "always_on")
NO_CENSUS = "No census is stored (record=off, no table, or ended early): no statement about dead units."


def run_view(
    history: pd.DataFrame,
    *,
    title: str,
    thresholds: Thresholds | None = None,
    healthy: float = HEALTHY,
    accuracy: float | None = None,
    diverged_at: int | None = None,
) -> RenderableType:
    """Table of sites and verdict of one run.

    Args:
        history: its censuses; may be empty.
        title: title of the table.
        thresholds: thresholds of the states.
        healthy: dead share below which a network is called healthy.
        accuracy: accuracy on the test set, shown after the verdict.
        diverged_at: step at which the loss stopped being finite.
    """
    if history.empty:
        return Text(NO_CENSUS)
    found = verdict(history, thresholds, healthy=healthy, diverged_at=diverged_at)
    return Group(
        SiteTable(site_table(history, thresholds), found, title, healthy, diverged=diverged_at is not None),
        Text(""),
        words(found, accuracy),
    )


class SiteTable:
    """One row per site and a total; states that never occur have no column.

    If the console is too narrow, the columns in `EXPENDABLE` are dropped, first to last.
    """

    def __init__(
        self, table: pd.DataFrame, found: Verdict, title: str, healthy: float, *, diverged: bool
    ) -> None:
        self._table, self._found, self._title, self._healthy = table, found, title, healthy
        self._diverged = diverged

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        hidden: list[str] = []
        view = self._view(hidden)
        unbounded = options.update(max_width=10_000)
        for name in EXPENDABLE:
            if Measurement.get(console, unbounded, view).maximum <= options.max_width:
                break
            hidden.append(name)
            view = self._view(hidden)
        yield view

    def _view(self, hidden: Sequence[str]) -> Table:
        table, found = self._table, self._found
        under = f"step {found.step:,}, {INPUTS[found.evidence]}"
        if found.evidence == "probe":
            under += "; starved and gradient: training stream"
        view = plain_table(self._title, under, show_footer=len(table) > 1)
        cells = self._cells()
        for name, (footer, _) in cells.items():
            if name not in hidden:
                right = "left" if name == "site" else "right"
                fold = name == "site" and len(hidden) == len(EXPENDABLE)
                view.add_column(
                    _header(name, found.evidence, self._diverged),
                    footer=footer,
                    justify=right,
                    no_wrap=not fold,
                    overflow="fold",
                )
        shown = [values for name, (_, values) in cells.items() if name not in hidden]
        for row in zip(*shown, strict=True):
            view.add_row(*row)
        return view

    def _cells(self) -> dict[str, tuple[str, list[str]]]:
        """Column → footer and cells."""
        rows = self._table.to_dict("records")
        seen = [row["units"] > 0 for row in rows]
        known = self._table[self._table["units"] > self._table["unobserved"]]
        total = known[["units", "dead", "unobserved", "non_finite"]].sum().to_dict()
        cells = {
            "site": ("all", [escape(row["site"]) for row in rows]),
            "units": (f"{self._table['units'].sum():,}", _counts(rows, "units", seen)),
            "dead %": (dead_share_text(total, unit=""), [self._dead(row) for row in rows]),
        }
        for name in COUNTS:
            if name in ("dead", "born_dead", "died", "revived") or self._table[name].any():
                cells[name] = f"{self._table[name].sum():,}", _counts(rows, name, seen)
        cells["n"] = "", [f"{row['n']:,}" for row in rows]
        rates = ["-" if pd.isna(row["rate"]) else f"{100 * row['rate']:.1f} %" for row in rows]
        cells["median_rate"] = "", rates
        gradients = ["-" if pd.isna(row["grad_rms"]) else f"{row['grad_rms']:.1e}" for row in rows]
        cells["gradient"] = "", gradients
        return cells

    def _dead(self, row: dict[Hashable, Any]) -> str:
        share = dead_share_text(row, unit="")
        return f"[bold red]{share}[/]" if row["dead"] > self._healthy * row["units"] else share


def words(found: Verdict, accuracy: float | None = None) -> Text:
    """The verdict, followed by the test accuracy."""
    text = Text(found.text)
    if accuracy is not None:
        text.append(f"\nTest accuracy {100 * accuracy:.1f} %.")
    return text


def _counts(rows: Sequence[dict[Hashable, Any]], name: str, seen: Sequence[bool]) -> list[str]:
    return [f"{row[name]:,}" if known else "-" for row, known in zip(rows, seen, strict=True)]


def _header(name: str, evidence: str, diverged: bool) -> str:
    """The heading of a column, wrapped to short lines."""
    return fill(head(name, evidence, diverged=diverged), 7, break_long_words=False)
