"""The tables of a sweep's report: best and worst runs, every setting."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from harness.compare.frames import word
from harness.report.comparison import by_setting
from harness.report.html.page import Block, Link, Table, Words
from harness.report.html.parts import frame_table, or_dash
from harness.report.plots.settings import key
from harness.store.runs import Run

LISTED = 5  # number of best and worst runs
SETTINGS = 300  # largest number of rows in the table of settings


def ends(frame: pd.DataFrame, ranked: list[str], by_name: dict[str, Run], home: Path | None) -> list[Block]:
    """Tables of the runs with fewest and most dead units, and of those without a result."""
    measured = frame[frame["dead"].notna()]
    best = measured.sort_values(["dead", "accuracy"], ascending=[True, False], kind="stable").head(LISTED)
    worst = measured.sort_values(["dead", "accuracy"], ascending=[False, True], kind="stable")
    worst = worst[~worst["run"].isin(best["run"])].head(LISTED)
    head = ["run", *(key(name) for name in ranked), "seed", "status", "dead", "born dead", "died", "accuracy"]
    left = frozenset({*range(len(ranked) + 1), len(ranked) + 2})

    def table(part: pd.DataFrame, caption: str) -> Table:
        rows: list[list[str | Link]] = []
        for row in part.to_dict("records"):
            settings = [word(row[name]) for name in ranked]
            shares = [or_dash(row[name]) for name in ("dead", "born_dead", "died", "accuracy")]
            link = link_to(by_name[row["run"]], home)
            rows.append([link, *settings, word(row["seed"]), str(row["status"]), *shares])
        return Table(head, rows, left, caption=caption)

    blocks: list[Block] = []
    for text, part in (("Fewest dead units", best), ("Most dead units", worst)):
        blocks += [table(part, text)] if len(part) else []
    gone = frame[frame["dead"].isna()]
    if len(gone):
        shown = gone.head(4 * LISTED)
        more = f", the first {len(shown)}" if len(gone) > len(shown) else ""
        blocks.append(table(shown, f"Without a result ({len(gone):,}{more})"))
        errors = {run: by_name[run].status.get("error") for run in shown["run"]}
        blocks += [Words(f"{run}: {error}", "note") for run, error in errors.items() if error]
    return blocks


def every_setting(frame: pd.DataFrame, ranked: list[str]) -> list[Block]:
    """One row per setting: its runs, how they ended, and the means of the finished ones."""
    if not ranked:
        return []
    table = by_setting(frame, ranked)
    few = len(table) <= SETTINGS
    fold = f"All {len(table):,} settings" if few else f"{SETTINGS:,} of {len(table):,} settings"
    names = ("dead", "born_dead", "died", "accuracy", "lowest_dead", "highest_dead")
    formats: dict[str, Callable[[Any], str]] = dict.fromkeys(names, or_dash)
    return [frame_table(table.head(SETTINGS), formats=formats, fold=f"{fold}, most dead units first")]


def link_to(run: Run, home: Path | None) -> str | Link:
    """A run's name with a link from the report's folder to the run's."""
    if home is None:
        return run.name
    target = os.path.relpath(run.path.resolve(), home.resolve())
    return Link(run.name, quote(Path(target).as_posix()))
