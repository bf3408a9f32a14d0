"""`harness-tools report`: verdicts on the console, and the full report as one HTML file."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from harness.detector.states import Thresholds
from harness.detector.verdict import HEALTHY
from harness.formats import per_cent
from harness.report.console_parts import plain_table
from harness.report.tables import run_view
from harness.store.runs import Run, Runs

if TYPE_CHECKING:
    from harness.attribution.diagnosis import Diagnosis
    from harness.report.html.parts import Diagnose

FEW = 4  # largest number of runs that are shown one by one
ROWS = 40  # rows of the table of settings
DETECT = {"rare": 0.01, "confidence": 0.95, "healthy": HEALTHY}  # for runs without a configuration


def thresholds_of(run: Run, asked: dict[str, float]) -> tuple[Thresholds, float]:
    """The thresholds of a run's verdict, its own unless others are given, and the healthy dead share.

    Raises:
        ValueError: one is not a share.
    """
    detect = DETECT | (run.config.get("detect") or {}) | asked
    return Thresholds.of(detect), float(detect["healthy"])


def stored_diagnosis(run: Run, asked: dict[str, float] | None = None) -> Diagnosis:
    """Why the units of a run are dead, from its stored evidence.

    Args:
        run: a run on disk.
        asked: thresholds that replace its own.

    Raises:
        ValueError: it stored no evidence, or an earlier version stored too little.
    """
    from harness.attribution.diagnosis import diagnose
    from harness.attribution.evidence import Evidence

    tables = run.evidence
    if run.is_own_loop and (tables is None or run.census.empty):
        raise ValueError(
            "this run kept no evidence. harness.Recorder(…, evidence=True) keeps it when the loop ends."
        )
    if tables is None or run.census.empty:
        raise ValueError(
            "this run kept no evidence, as runs of a sweep do not. "
            f"harness.diagnose({str(run.path)!r}) trains it once more to gather it; then report again."
        )
    try:
        return diagnose(run.census, Evidence(**tables), thresholds_of(run, asked or {})[0])
    except KeyError as error:  # written by a version that gathered less
        raise ValueError(f"{run.path}: its evidence lacks {error}") from None


def views(runs: Runs, asked: dict[str, float]) -> Iterator[RenderableType]:
    """What the console shows for a few runs: the table of sites and the verdict of each.

    Raises:
        ValueError: a threshold is not a share.
    """
    for run in runs:
        thresholds, healthy = thresholds_of(run, asked)
        try:
            history = run.census
        except (OSError, ValueError) as error:  # a damaged table must not hide other runs
            yield Text(f"{run.path}: cannot be read ({error})")
            continue
        if run.state == "failed":
            error = run.status.get("error") or "error.txt has the reason"
            yield Text(f"{run.name} failed ({error}); what follows is of the censuses before that.\n")
        yield run_view(
            history,
            title=f"{run.name} ({run.state})",
            thresholds=thresholds,
            healthy=healthy,
            accuracy=run.final.get("accuracy"),
            diverged_at=run.status.get("diverged_at"),
        )
        yield Text("")


def write_report(
    runs: Runs, folder: Path, out: Path | None, asked: dict[str, float], diagnose: Diagnose | None = None
) -> Iterator[RenderableType | Path]:
    """Write the HTML report; first yield what the console shows.

    Args:
        runs: at least one run.
        folder: the folder in which they were found, and of the report unless `out` is given.
        out: the file.
        asked: thresholds that replace the runs' own.
        diagnose: names the causes of a run's deaths; None: from its stored evidence.

    Yields:
        What to print, and last the path of the file.

    Raises:
        ValueError: a threshold is not a share, there are thresholds for more than one run, whose verdicts are
            stored, or `out` is a folder.
        OSError: the file cannot be written.
    """
    target = folder / "report.html" if out is None else out
    if target.is_dir() or not target.parent.is_dir():
        raise ValueError(f"--out: expected a file in a folder that is there, but got {target}")
    if asked and len(runs) > 1:
        names = ", ".join(f"--{name}" for name in asked)
        raise ValueError(
            f"{names}: expected one run, since a sweep is reported with the verdicts that its runs stored, "
            f"but {folder} has {len(runs):,} runs"
        )
    thresholds, healthy = thresholds_of(runs[0], asked)
    diagnose = diagnose or partial(stored_diagnosis, asked=asked)
    if len(runs) <= FEW:
        yield from views(runs, asked)
    if len(runs) == 1:
        from harness.report.html.run import run_report

        page = run_report(runs[0], thresholds=thresholds, healthy=healthy, diagnose=diagnose)
        yield page.write(target)
        return
    from harness.report.comparison import by_setting, compared, ranked_factors
    from harness.report.html.sweep import sweep_report

    found = compared(runs)
    yield from (Text(text) for text in found.sentences)
    factors = ranked_factors(found)
    if len(runs) > FEW and factors:
        yield settings_table(by_setting(found.outcomes, factors), len(factors))
    title = f"{len(runs):,} runs in {folder.resolve().name}"
    page = sweep_report(
        runs,
        title=title,
        home=target.parent,
        thresholds=thresholds,
        diagnose=diagnose,
        comparison=found,
    )
    yield page.write(target)


def settings_table(table: pd.DataFrame, factors: int) -> Table:
    """The table of settings, most dead units first.

    Args:
        table: result of `comparison.by_setting`.
        factors: number of its first columns that define the setting.
    """
    idle = [name for name in ("diverged", "failed") if not table[name].any()]
    shown = table.drop(columns=["finished", "lowest_dead", "highest_dead", *idle])
    view = plain_table()
    for k, name in enumerate(shown.columns):
        side = "left" if k < factors else "right"
        view.add_column(escape(str(name)).replace("_", " "), justify=side, overflow="fold")
    for row in shown.head(ROWS).itertuples(index=False, name=None):
        view.add_row(*(_cell(value) for value in row))
    if len(table) > ROWS:
        view.caption = f"{ROWS} of {len(table):,} settings; all are in the report"
    return view


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, float):
        return per_cent(value, missing="–")
    return f"{value:,}"
