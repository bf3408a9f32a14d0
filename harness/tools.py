"""`harness-tools`: what can be done with runs that are there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from harness.store.runs import Runs

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Look at finished runs, and rebuild their views.",
)
Folder = Annotated[Path, typer.Argument(help="A run's folder, or any folder above.")]


@app.command()
def report(
    path: Folder,
    rare: Annotated[float, typer.Option(help="Alive units with a rate below this are rare.")] = 0.01,
    confidence: Annotated[float, typer.Option(help="Of the bound on a dead unit's rate.")] = 0.95,
) -> None:
    """Print the table and the verdict of every run, under any thresholds."""
    from harness.detector.states import Thresholds
    from harness.report.tables import run_view

    try:
        thresholds = Thresholds(rare, confidence)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    for run in _runs(path):
        final = run.status.get("final") or {}
        console.print(
            run_view(
                run.census,
                title=f"{run.name} ({run.status['state']})",
                thresholds=thresholds,
                accuracy=final.get("accuracy"),
                diverged_at=run.status.get("diverged_at"),
            )
        )
        console.print()


@app.command()
def dashboard(path: Folder) -> None:
    """Rebuild the TensorBoard event files of every run from its tables."""
    from harness.report.tensorboard import rebuild

    runs = _runs(path)
    for run in runs:
        rebuild(run)
    print(f"{len(runs)} run(s) rebuilt. Look at them with: tensorboard --logdir {path}")


def _runs(path: Path) -> Runs:
    from harness.store.runs import open_runs

    try:
        runs = open_runs(path)
    except FileNotFoundError as error:
        raise typer.BadParameter(str(error)) from None
    if not len(runs):
        raise typer.BadParameter(f"there is no run in {path} (a run has config.yaml and status.json)")
    return runs
