"""PAPERS.md: papers' numbers beside ours. Made from stored results; rows are measured on request."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from experiments import paper
from experiments.budgets import data_folder
from experiments.paper import NOT_RUN, Row
from experiments.running import FailedRunsError, facts
from experiments.shelf import Result, Shelf
from harness.config import ConfigError
from harness.store.files import write_text

BUDGET = "papers"  # folder of the results
PAGE = "PAPERS.md"
INTRO = """# Papers' numbers beside ours

`python -m experiments --papers` measures what has no result yet and writes this page; `--papers NAME`
measures the rows named, also those that need a GPU or hours. Data sets are read from the folder that the
environment names as `HARNESS_DATA`.

*Read* says where the paper's number was read: in the *source* itself, in its *abstract*, or in a *secondary*
text, which can be wrong about it. Intervals are 95 % bootstrap-t intervals over seeds. *Agrees* and *differs*
are about the number where the setting is the paper's. A **scaled** row is smaller than the paper's
experiment, and its verdict is on the direction alone: it neither confirms nor contradicts the paper's own
number."""


def make(names: Sequence[str], results: Path, page: Path) -> None:
    """Measure what is asked for, and write the page.

    Args:
        names: of rows, measured anew; none: all light ones that have no result.
        results: folder of stored results.
        page: folder of PAPERS.md.

    Raises:
        ValueError: an unknown row, or one that this package has no code for.
        FailedRunsError: a row's data could not be read; the page is written all the same.
    """
    shelf, console, errors = Shelf(results), Console(highlight=False), []
    chosen = [paper.row(name) for name in names]
    missing = [row.name for row in chosen if row.measure is None]
    if missing:
        raise ValueError(f"--papers: {', '.join(missing)} cannot be run here; the page gives the command")
    if not names:
        light = [row for row in paper.rows() if row.measure is not None and not row.heavy]
        chosen = [row for row in light if shelf.get(row.name, BUDGET) is None]
    for row in chosen:
        console.print(f"{row.name} …", markup=False)
        try:
            shelf.put(measured(row))
        except (ConfigError, OSError) as error:
            errors.append(f"{row.name}: {error}")
    write_text(page / PAGE, text(paper.rows(), shelf))
    console.print(f"page        {page / PAGE}", soft_wrap=True, markup=False)
    if errors:
        raise FailedRunsError("\n".join(errors))


def measured(row: Row) -> Result:
    """The result of a row."""
    assert row.measure is not None
    began = time.monotonic()
    table = row.measure(data_folder())
    made = {"date": datetime.now(UTC).date().isoformat()}
    return Result(row.name, BUDGET, table, facts(time.monotonic() - began) | made)


def text(rows: Sequence[Row], shelf: Shelf) -> str:
    """The page as Markdown."""
    kept = [(row, shelf.get(row.name, BUDGET)) for row in rows]
    lines = [
        INTRO,
        "",
        "| paper | read | theirs | ours | verdict | time |",
        "|---|---|---|---|---|---|",
        *(_line(row, result) for row, result in kept),
        "",
        "## Settings",
    ]
    for row, result in kept:
        lines += ["", f"### {row.name}", "", f"{row.source}.", "", f"*Run here:* {row.setting}"]
        lines += ["", f"*Scaled:* {row.scaled}"] if row.scaled else []
        lines += ["", *_made(row, result)]
    return "\n".join(lines) + "\n"


def _line(row: Row, result: Result | None) -> str:
    ours, verdict, took = "–", NOT_RUN if row.heavy else "no result yet", row.heavy or "–"
    if result is not None and row.tell is not None and row.decide is not None:
        ours, verdict = row.tell(result.table), row.decide(result.table)
        verdict = f"{verdict} in direction (scaled)" if row.scaled else verdict
        took = f"{float(result.facts['seconds']):.0f} s"
    cells = (f"[{row.name}](#{row.name})", row.read, row.theirs, ours, f"**{verdict}**", took)
    return f"| {' | '.join(cells)} |"


def _made(row: Row, result: Result | None) -> list[str]:
    own = f"`python -m experiments --papers {row.name}`"
    if result is None:
        return [f"*Command:* {f'`{row.command}`' if row.command else own}"]
    made = result.facts
    seeds = result.table["seed"].nunique()
    return [
        f"*Made* by {own} on {made['date']}, {seeds} seed{'s' * (seeds != 1)}, {made['hardware']}, "
        f"torch {made['versions']['torch']}."
    ]
