"""`harness-tools`: what can be done with runs and models that are there, and the self-test."""

from __future__ import annotations

import sys
import warnings
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.report.terminal_width import console
from harness.tools_io import (
    called,
    probe_of,
    refusing,
    run_in,
    runs_in,
    serve_folder,
    times_of,
    write_found,
)

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
Folder = Annotated[Path, typer.Argument(help="A run's folder, or any folder above.")]
Json = Annotated[Path | None, typer.Option(help="Write all tables to this file.")]
Csv = Annotated[Path | None, typer.Option(help="Write each table to a file in this folder.")]


class Begin(StrEnum):
    """Where trials begin: at the run's first step, or at its last healthy census."""

    start = "start"
    healthy = "healthy"


def _version(asked: bool) -> None:
    if asked:
        from harness import __version__

        print(f"harness-tools {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Analyse stored runs, scan models, find causes and cures, and check that counting is exact."""


@app.command()
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


@app.command()
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
    correction: Annotated[str, typer.Option(help="Correction of the p-values: holm, fdr or none.")] = "holm",
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


@app.command()
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
    print(f"{len(runs) - lost} run(s) rebuilt. Look at them with: tensorboard --logdir {path}")
    if lost == len(runs):
        raise typer.Exit(1)
    if hint := tick_hint(len(runs)):
        print(hint)
    if serve:
        serve_folder(path, port)


@app.command()
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


@app.command()
def scan(
    factory: Annotated[str, typer.Argument(help="package.module:function that returns the model.")],
    data: Annotated[
        str, typer.Option(help="One of our data sets, of which the held-out probe is used.")
    ] = "digits",
    batches: Annotated[
        str, typer.Option(help="package.module:function that returns batches to use instead.")
    ] = "",
    override: Annotated[
        list[str] | None, typer.Option(help="Overrides for the data, such as data.root=…")
    ] = None,
    out: Annotated[
        list[Path] | None, typer.Option(help="Files to write (.html, .json, .csv, .parquet, .sarif).")
    ] = None,
    fail_over: Annotated[float | None, typer.Option(help="Exit with code 1 above this dead share.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only show what would be counted.")] = False,
) -> None:
    """Pass data through any model and list its dead units (exit code 1 above --fail-over, for CI)."""
    from harness.config import ConfigError
    from harness.recording.batches import as_batches
    from harness.recording.model_calls import arguments_of
    from harness.recording.scan import DeadUnitsError
    from harness.recording.scan import scan as scan_model
    from harness.report.export import export

    if fail_over is not None and not 0 <= fail_over <= 1:
        hint = f" ({fail_over / 100:g} for {fail_over:g} %)" if 1 < fail_over <= 100 else ""
        raise typer.BadParameter(f"--fail-over: expected a share in [0, 1], but got {fail_over:g}{hint}")
    try:
        model = called(factory)
        inputs = called(batches) if batches else probe_of(data, override or [])
        if plan:
            first = islice(as_batches(inputs, len(arguments_of(model).required)), 1)
            print(scan_model(model, list(first)).plan)
            return
        found = scan_model(model, inputs)
        print(found)
        for path in out or ():
            export(found.units, path, subject=factory)
        if fail_over is not None:
            found.raise_if(fail_over)
    except DeadUnitsError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(1) from None
    except (ConfigError, ValueError, TypeError, OSError) as error:
        raise typer.BadParameter(str(error)) from None
    except KeyboardInterrupt:
        raise
    except (
        BaseException
    ) as error:  # of the model itself: 1 would mean too many dead units, 0 that all is well
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        raise typer.BadParameter(f"{factory} cannot be run on these batches ({reason})") from None


@app.command()
def selftest(
    only: Annotated[
        str | None, typer.Option(help="Run only cases whose name contains this, or matches this glob.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="List every case.")] = False,
    device: Annotated[str, typer.Option(help="Device to run the cases on: cpu, cuda, …")] = "cpu",
    json: Annotated[Path | None, typer.Option(help="Also write the result to this file.")] = None,
) -> None:
    """Check the counting on models whose dead units are known (exit code 1 if a count is wrong)."""
    from harness.selftest.cases import chosen
    from harness.selftest.run import run
    from harness.selftest.show import as_json, sound, view
    from harness.store.files import typed, write_json

    with refusing(ValueError, OSError):
        outcomes = list(run(chosen(only), device))
        if json is not None:
            write_json(json, as_json(outcomes, device), typed)
    shown = view(outcomes, device, verbose=verbose)
    console(shown).print(shown)
    if not sound(outcomes):
        raise typer.Exit(1)


@app.command()
def diagnose(path: Folder, json: Json = None, csv: Csv = None) -> None:
    """Explain why units are dead (a run of a sweep is trained once more to gather evidence)."""
    import pandas as pd

    from harness.attribution.next_step import next_step
    from harness.sweeps.diagnose import diagnose as diagnosed

    out, rows, units = console(), [], []
    for run in runs_in(path):
        out.print(run.name, style="bold", markup=False)
        try:
            found = diagnosed(run)
            step = next_step(found.label)
            out.print(f"{found}\n", *([f"Next: {step}\n"] if step else []), sep="\n", markup=False)
            rows.append({"run": run.name, "cause": found.label, "text": str(found), "next": step})
            units.append(found.units.assign(run=run.name))
        except (OSError, ValueError) as error:
            out.print(f"cannot be diagnosed: {error}\n", soft_wrap=True, markup=False)
    if not rows:
        raise typer.Exit(1)
    write_found({"causes": pd.DataFrame(rows), "units": pd.concat(units, ignore_index=True)}, json, csv)


@app.command()
def risk(
    path: Annotated[Path, typer.Argument(help="The folder of one run.")],
    step: Annotated[int | None, typer.Option(help="Step of the census to use; default: the last.")] = None,
    most: Annotated[int, typer.Option(min=1, help="Number of units to list.")] = 20,
    json: Json = None,
    csv: Csv = None,
) -> None:
    """List the living units that are most likely to die, in order."""
    from harness.attribution.risk import risk as at_risk
    from harness.report.risk_table import risk_view
    from harness.store.reading import DamagedFile

    try:
        history = run_in(path).census
        view = risk_view(history, step, most)
    except DamagedFile as error:  # nothing is left
        print(f"harness-tools: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    console(view).print(view)
    if json is not None or csv is not None:
        write_found({"risk": at_risk(history, step)}, json, csv)


@app.command()
def confirm(
    path: Annotated[Path, typer.Argument(help="The folder of one run.")],
    seeds: Annotated[int, typer.Option(help="Number of seeds per arm.")] = 3,
    json: Json = None,
    csv: Csv = None,
) -> None:
    """Confirm a cause: train the beginning again with one setting made normal at a time."""
    from harness.config import ConfigError
    from harness.trials.confirm import confirm as confirmed
    from harness.trials.confirm import view

    run = run_in(path)
    with refusing(ConfigError, OSError, ValueError):
        found = confirmed(run, seeds)
    shown = view(found)
    console(shown).print(shown)
    write_found({"arms": found.arms}, json, csv, cause=found.label, observed=found.observed, text=found.text)


@app.command()
def prescribe(
    path: Annotated[Path, typer.Argument(help="The folder of one run, or of a sweep.")],
    budget: Annotated[
        str, typer.Option(help="Work to spend: a multiple of the run's own time on every core.")
    ] = "2x",
    seeds: Annotated[int, typer.Option(help="Number of seeds per cure, from the second round on.")] = 3,
    begin: Annotated[
        Begin,
        typer.Option("--from", help="Start the trials at the first step, or at the last healthy census."),
    ] = Begin.start,
    json: Json = None,
    csv: Csv = None,
) -> None:
    """Try plausible cures on a run, recommend the smallest that works; of a sweep, find the safe settings."""
    from harness.config import ConfigError
    from harness.report.prescription_table import prescription_view
    from harness.trials.safe_region import safe_region
    from harness.trials.stored_run import prescribe_run

    runs, out = runs_in(path), console()
    if len(runs) > 1:
        with refusing(ValueError):
            region = safe_region(runs, path)
        out.print(region.text, markup=False)
        if region.command:
            print(f"\nThe next runs would tell most:\n{region.command}")
        write_found({"settings": region.table}, json, csv, command=region.command, text=region.text)
        return
    try:
        with refusing(ConfigError, OSError, ValueError):
            times = times_of(budget)
            found = prescribe_run(
                runs[0], times, seeds, lambda line: out.print(line, style="dim", markup=False), begin.value
            )
    except KeyboardInterrupt:
        print("harness-tools: interrupted; the same command continues.", file=sys.stderr)
        raise typer.Exit(130) from None
    if len(found.table):
        view = prescription_view(found.table)
        console(view).print(view)
    out.print(found.text, markup=False)
    for name, reason in found.left_out.items():
        out.print(f"left out: {name} ({reason})", markup=False)
    if found.command:
        print(f"\n{found.command}")
    write_found({"arms": found.table}, json, csv, cure=found.cure, command=found.command, text=found.text)


@app.command()
def threshold(
    axis: Annotated[str, typer.Option(help="Number in the configuration to vary, such as optim.lr")],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            help="Overrides (each combination is an arm) or, without --between, a folder of runs."
        ),
    ] = None,
    between: Annotated[
        tuple[float, float] | None, typer.Option(help="Train runs between these two values.")
    ] = None,
    share: Annotated[float, typer.Option(help="Dead share to cross.")] = 0.5,
    seeds: Annotated[int, typer.Option(help="Number of seeds per arm.")] = 8,
    resolution: Annotated[
        float | None,
        typer.Option(help="Precision: a ratio (log, 1.1) or a difference (linear, 1/64 of the range)."),
    ] = None,
    scale: Annotated[str, typer.Option(help="log, linear, or auto: log above 0.")] = "auto",
    checks: Annotated[int, typer.Option(help="Extra values per seed that check for another crossing.")] = 2,
    output: Annotated[
        Path | None, typer.Option(help="Folder of results; default: runs/edge, or the given folder.")
    ] = None,
    json: Json = None,
    csv: Csv = None,
) -> None:
    """Find the value of a number at which the dead share crosses a threshold, by bisection."""
    from harness.config import ConfigError
    from harness.sweeps.threshold_search.command import run
    from harness.sweeps.threshold_search.show import view

    try:
        found = run(words or [], axis, between, share, seeds, resolution, scale, checks, output)
    except (ConfigError, ValueError, OSError) as error:
        raise typer.BadParameter(str(error)) from None
    except KeyboardInterrupt:
        print("harness-tools: interrupted; the same command continues.", file=sys.stderr)
        raise typer.Exit(130) from None
    shown = view(found)
    console(shown).print(shown)
    write_found({"edges": found.table()}, json, csv, **found.as_json())
    if found.errors:
        raise typer.Exit(1)


app.command("edge", hidden=True, deprecated=True)(threshold)  # its earlier name


def main() -> None:
    """The script `harness-tools`."""
    from harness.terminal import run

    warnings.showwarning = _say  # a warning is for the reader of the table, not for a programmer
    sys.exit(run("harness-tools", lambda: app(prog_name="harness-tools")))


def _say(message: Warning | str, *_: Any) -> None:
    print(f"harness-tools: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
