"""The console's view of a run: a table per site, torchinfo-like, and the verdict in plain words."""

from __future__ import annotations

import pandas as pd
from rich.box import SIMPLE_HEAD
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
        title=f"{title}\n[not bold dim]step {found.step:,}, {evidence}[/]",
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        show_footer=len(table) > 1,
        padding=(0, 0, 0, 1),
        pad_edge=False,
    )
    view.add_column("site", footer="all", no_wrap=True)
    view.add_column("units", footer=f"{table['units'].sum():,}", justify="right")
    view.add_column("dead %", footer=f"{_share(table['dead'].sum(), table['units'].sum())}", justify="right")
    for name in shown:
        view.add_column(_header(name), footer=f"{table[name].sum():,}", justify="right", no_wrap=True)
    for name in ("n", "median\nrate", "gradient"):
        view.add_column(name, justify="right", no_wrap=True)
    for row in table.to_dict("records"):
        hidden = row["units"] == 0
        share = _share(row["dead"], row["units"])
        unhealthy = not hidden and row["dead"] / row["units"] > HEALTHY
        view.add_row(
            row["site"],
            "-" if hidden else f"{row['units']:,}",
            f"[bold red]{share}[/]" if unhealthy else share,
            *("-" if hidden else f"{row[name]:,}" for name in shown),
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


def _header(name: str) -> str:
    return name.replace("_", "\n") if name != "non_finite" else "not\nfinite"


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f}" if whole else "unobserved"
