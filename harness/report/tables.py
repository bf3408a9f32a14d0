"""The console's view of a run: a table per site, torchinfo-like, and the verdict in plain words."""

from __future__ import annotations

import pandas as pd
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.detector.states import Thresholds
from harness.detector.verdict import HEALTHY, Verdict, site_table, verdict

COUNTS = ("dead", "born_dead", "died", "revived", "rare", "starved", "non_finite", "always_on")


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
        title: above the table.
        thresholds: of the states.
        healthy: dead share below which a network is called healthy.
        accuracy: on the test set, shown beside the dead share.
        diverged_at: step at which the loss stopped being finite.
    """
    if history.empty:
        return Text("Nothing was recorded (record=off): no statement about dead units.")
    found = verdict(history, thresholds, healthy=healthy, diverged_at=diverged_at)
    return Group(sites(site_table(history, thresholds), found, title), Text(""), words(found, accuracy))


def sites(table: pd.DataFrame, found: Verdict, title: str) -> Table:
    """One row per site and a total; states that never occur have no column."""
    shown = [c for c in COUNTS if c in ("dead", "born_dead", "died", "revived") or table[c].any()]
    evidence = {"probe": "held-out probe", "stream": "training stream"}[found.evidence]
    view = Table(
        title=f"{title}\n[dim]step {found.step:,}, {evidence}[/dim]",
        title_justify="left",
        title_style="bold",
        show_footer=len(table) > 1,
    )
    view.add_column("site", footer="all", no_wrap=True)
    for name, value in (("units", table["units"].sum()), *((c, table[c].sum()) for c in shown)):
        view.add_column(name.replace("_", " "), justify="right", footer=f"{value:,}")
    for name in ("n", "median rate", "gradient"):
        view.add_column(name, justify="right")
    for row in table.to_dict("records"):
        view.add_row(
            row["site"],
            f"{row['units']:,}",
            *(_count(row[c], row["units"], c) for c in shown),
            f"{row['n']:,}",
            "-" if pd.isna(row["rate"]) else f"{100 * row['rate']:.1f} %",
            "-" if pd.isna(row["grad_rms"]) else f"{row['grad_rms']:.1e}",
        )
    return view


def words(found: Verdict, accuracy: float | None = None) -> Text:
    """The verdict, with the task metric beside it."""
    text = Text(found.text)
    if accuracy is not None:
        text.append(f"\nTest accuracy {100 * accuracy:.1f} %.")
    return text


def _count(value: int, units: int, name: str) -> str:
    share = value / units if units else 0.0
    text = f"{value:,}" if not value else f"{value:,} ({100 * share:.0f} %)" if share >= 0.005 else f"{value:,} (<1 %)"
    return f"[bold red]{text}[/]" if name == "dead" and share >= HEALTHY else text
