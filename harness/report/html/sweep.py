"""The report on a sweep: sentences first, then important factors, critical values, and the runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from matplotlib.figure import Figure

from harness.compare.comparison import Comparison
from harness.compare.frames import word
from harness.detector.states import Thresholds
from harness.formats import per_cent
from harness.report import plots
from harness.report.comparison import by_setting, compared, ranked_factors
from harness.report.html.method import definitions
from harness.report.html.page import Block, Link, Page, Section, Table, Tiles, Words
from harness.report.html.parts import Diagnose, causes, diagnosed, drawn, frame_table, or_dash
from harness.report.html.sweep_figures import doses, factors, phases, survival
from harness.report.plots.settings import key
from harness.store.runs import Run, Runs

LISTED = 5  # number of best and worst runs
SETTINGS = 300  # largest number of rows in the table of settings


def sweep_report(
    runs: Runs,
    *,
    title: str = "Sweep",
    home: Path | None = None,
    thresholds: Thresholds | None = None,
    diagnose: Diagnose | None = None,
    comparison: Comparison | None = None,
) -> Page:
    """The report on many runs.

    Args:
        runs: runs on disk, in any status.
        title: title of the page.
        home: folder of the report; links are relative to it. None leaves them out.
        thresholds: thresholds of the stored verdicts.
        diagnose: names the causes of a run's deaths; None leaves them out.
        comparison: comparison of these runs, if already made.
    """
    found = comparison or compared(runs)
    frame, ranked = found.outcomes, ranked_factors(found)
    chosen, by_name = telling(frame), {run.name: run for run in runs}
    varied = _listed([key(name) for name in ranked]) or "nothing but their seeds"
    verdict = [*(Words(text, "lead") for text in found.sentences), _tiles(frame)]
    return Page(
        title,
        f"{len(runs):,} runs, compared by {varied}",
        [
            Section("Verdict", [*verdict, *(Words(text, "note") for text in found.notes)]),
            *factors(found, ranked),
            Section("Phase diagrams", phases(frame, ranked)),
            Section("Along a setting", doses(frame, ranked)),
            Section("When units die", survival(found.lives, ranked)),
            Section("Every unit of the most telling runs", _maps(chosen, by_name)),
            _causes(chosen, by_name, diagnose),
            Section("Best and worst runs", _ends(frame, ranked, by_name, home)),
            Section("Every setting", _every_setting(frame, ranked)),
            definitions(thresholds or Thresholds(), sweep=True),
        ],
    )


def telling(frame: pd.DataFrame) -> dict[str, str]:
    """Reason to look at a run → its name; no run appears twice.

    Example:
        >>> f = pd.DataFrame({"run": ["a", "b"], "dead": [0.1, 0.9], "died": [0.0, 0.1], "accuracy": 0.5})
        >>> telling(f)
        {'Most dead units': 'b', 'Fewest dead units': 'a'}
    """
    rest = frame[frame["dead"].notna()]
    chosen: dict[str, str] = {}
    for why, columns, ascending in (
        ("Most dead units", ["dead", "accuracy"], [False, True]),
        ("Most deaths", ["died", "dead"], [False, False]),
        ("Fewest dead units", ["dead", "accuracy"], [True, False]),
    ):
        if len(rest) and (why != "Most deaths" or rest["died"].max() > 0):
            first = rest.sort_values(columns, ascending=ascending, kind="stable").iloc[0]
            chosen[why] = str(first["run"])
            rest = rest[rest["run"] != first["run"]]
    return chosen


def _tiles(frame: pd.DataFrame) -> Tiles:
    items = [(f"{count:,}", str(state)) for state, count in frame["status"].value_counts().items()]
    dead = frame["dead"].dropna()
    if len(dead):
        reach = f"{per_cent(dead.min(), 0)} to {per_cent(dead.max(), 0)}"
        items.append((reach, "dead units of the finished runs"))
    return Tiles(items)


def _maps(chosen: dict[str, str], by_name: dict[str, Run]) -> list[Block]:
    blocks: list[Block] = []
    for why, name in chosen.items():

        def draw(run: Run = by_name[name]) -> Figure:
            columns = ["evidence", "step", "site", "unit", "state", "rate"]
            return plots.rate_map(run.read("census", columns).to_pandas())

        blocks += [Words(f"{why}: {name}"), *drawn(draw)]
    return blocks


def _causes(chosen: dict[str, str], by_name: dict[str, Run], diagnose: Diagnose | None) -> Section:
    """Why the units of the run with most dead units died."""
    name = next(iter(chosen.values()), None)
    if name is None:
        return Section("Causes", [])
    found = causes(diagnosed(by_name[name], diagnose))
    return Section(found.title, [Words(f"Of the run with most dead units, {name}:"), *found.blocks])


def _ends(frame: pd.DataFrame, ranked: list[str], by_name: dict[str, Run], home: Path | None) -> list[Block]:
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
            link = _link_to(by_name[row["run"]], home)
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


def _every_setting(frame: pd.DataFrame, ranked: list[str]) -> list[Block]:
    """One row per setting: its runs, how they ended, and the means of the finished ones."""
    if not ranked:
        return []
    table = by_setting(frame, ranked)
    few = len(table) <= SETTINGS
    fold = f"All {len(table):,} settings" if few else f"{SETTINGS:,} of {len(table):,} settings"
    names = ("dead", "born_dead", "died", "accuracy", "lowest_dead", "highest_dead")
    formats: dict[str, Callable[[Any], str]] = dict.fromkeys(names, or_dash)
    return [frame_table(table.head(SETTINGS), formats=formats, fold=f"{fold}, most dead units first")]


def _link_to(run: Run, home: Path | None) -> str | Link:
    """A run's name with a link from the report's folder to the run's."""
    if home is None:
        return run.name
    target = os.path.relpath(run.path.resolve(), home.resolve())
    return Link(run.name, quote(Path(target).as_posix()))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else "".join(names)
