"""Commands that show stored runs: `harness-tools report`, `compare`, `dashboard` and `status`."""

from __future__ import annotations

import sys
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from harness.report.terminal_width import console
from harness.tools_io import Csv, Folder, Json, refusing, runs_in, serve_folder, write_found


def report(
    path: Folder,
    out: Annotated[
        Path | None, typer.Option(help="HTML file to write; default: report.html in the folder.")
    ] = None,
    rare: Annotated[float | None, typer.Option(help="Living units with a rate below this are rare.")] = None,
    confidence: Annotated[
        float | None, typer.Option(help="Confidence of the bound on a dead unit's rate.")
    ] = None,
    healthy: Annotated[float | None, typer.Option(help="Dead share below which a run is healthy.")] = None,
    json: Json = None,
    csv: Csv = None,
) -> None:
    """Summarise runs, with their own thresholds or with others, and write an HTML report."""
    from harness.report.report_command import write_report

    if healthy is not None and not 0 <= healthy <= 1:
        raise typer.BadParameter(f"healthy: expected a share in [0, 1], but got {healthy}")
    given = {"rare": rare, "confidence": confidence, "healthy": healthy}
    asked = {name: value for name, value in given.items() if value is not None}
    runs = runs_in(path)
    with refusing(ValueError, OSError):
        for shown in write_report(runs, path, out, asked):
            if isinstance(shown, Path):
                console().print(f"report      {shown}", soft_wrap=True, markup=False)
            else:
                console(shown).print(shown)
    write_found({"runs": runs.table}, json, csv)


def compare(
    paths: Annotated[list[Path], typer.Argument(help="Folders of runs, or parent folders.")],
    factor: Annotated[str | None, typer.Option(help="Factor to compare; default: all that vary.")] = None,
    by: Annotated[
        list[str] | None, typer.Option(help="Factors whose settings get tables of their own.")
    ] = None,
    outcome: Annotated[
        list[str] | None, typer.Option(help="Outcomes: dead, born_dead, died, revived, accuracy, diverged.")
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="Level to compare the others with.")] = None,
    share: Annotated[float, typer.Option(help="Share of the first outcome at its critical values.")] = 0.5,
    correction: Annotated[
        str, typer.Option(help="Correction of the p-values: max_t, holm, fdr or none.")
    ] = "max_t",
    survival: Annotated[
        bool | None,
        typer.Option("--survival/--no-survival", help="Read the censuses; default: for up to 512 runs."),
    ] = None,
    json: Json = None,
    csv: Csv = None,
) -> None:
    """Compare the settings of a sweep: effects, ranking, survival, critical values, with seeds as blocks."""
    from harness.report.compare_command import run, tables_of
    from harness.report.compare_tables import view

    with refusing(ValueError, OSError):
        found = run(paths, factor, by or [], outcome or [], baseline, share, correction, survival)
    shown = view(found, share)
    console(shown).print(shown)
    tables, facts = tables_of(found)
    write_found(tables, json, csv, **facts)


def dashboard(
    path: Folder,
    maps: Annotated[bool, typer.Option(help="Draw a heat map of every run.")] = True,
    serve: Annotated[bool, typer.Option("--serve", help="Start TensorBoard afterwards.")] = False,
    port: Annotated[
        int | None, typer.Option(help="Port of TensorBoard; default: the first free one from 6006.")
    ] = None,
) -> None:
    """Rebuild the TensorBoard files of runs and sweeps from their tables."""
    from harness.report.dashboard_command import rebuild_dashboard
    from harness.report.tensorboard_hint import tick_hint

    runs, lost = runs_in(path), 0
    try:
        for run, error in rebuild_dashboard(runs, path, maps=maps):
            if error:
                lost += 1
                print(f"{run.path}: cannot be rebuilt ({error})", file=sys.stderr)
    except OSError as error:
        raise typer.BadParameter(f"cannot write to {path} ({error.strerror or error})") from None
    print(f"{len(runs) - lost} run(s) rebuilt. Look at them with: tensorboard --logdir {quote(str(path))}")
    if lost == len(runs):
        raise typer.Exit(1)
    if hint := tick_hint(len(runs)):
        print(hint)
    if serve:
        serve_folder(path, port)


def status(path: Folder, json: Json = None) -> None:
    """Show the state of the runs in a folder: finished, running, waiting, failed and why."""
    from harness.sweeps.status import status_of

    with refusing(FileNotFoundError):
        found = status_of(path.expanduser())
    if not found.total:
        raise typer.BadParameter(f"there are no runs in {path}")
    if json is not None:
        facts = {"folder": path, "states": found.states, "errors": found.errors, "damaged": found.damaged}
        write_found(
            {}, json, None, **facts, tasks=found.tasks, runs_per_minute=found.rate, seconds_left=found.left
        )
    out = console()
    words = ", ".join(f"{count:,} {state}" for state, count in found.states.most_common())
    out.print(f"{found.total:,} runs in {path}: {words}", soft_wrap=True, markup=False)
    for damage in found.damaged[:20]:
        out.print(damage, style="red", soft_wrap=True, markup=False)
    for task in found.tasks:
        out.print(f"  training {task['runs']:,} run(s): step {task['step']:,} of {task['total']:,}")
    if found.rate is not None and found.left is not None:
        out.print(f"  {found.rate:,.0f} runs a minute, about {found.left / 60:.1f} minutes left")
    for run, error in list(found.errors.items())[:20]:
        out.print("failed", style="bold red", end=" ")
        out.print(f"{run}: {error}", soft_wrap=True, markup=False)
    if len(found.errors) > 20:
        out.print(f"… and {len(found.errors) - 20:,} more")
    if found.states["damaged"] == found.total:
        raise typer.Exit(1)
