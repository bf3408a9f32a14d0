"""Commands about causes and cures: `harness-tools diagnose`, `risk`, `confirm`, `prescribe`, `threshold`."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from harness.report.terminal_width import console
from harness.tools_io import Csv, Folder, Json, continuing, refusing, run_in, runs_in, times_of, write_found


class Begin(StrEnum):
    """Where trials begin: at the run's first step, or at its last healthy census."""

    start = "start"
    healthy = "healthy"


def diagnose(path: Folder, json: Json = None, csv: Csv = None) -> None:
    """Explain why units are dead (a run of a sweep is trained once more to gather evidence)."""
    import pandas as pd

    from harness.sweeps.diagnose import diagnose as diagnosed

    out, rows, units = console(), [], []
    for run in runs_in(path):
        out.print(run.name, style="bold", markup=False)
        try:
            found = diagnosed(run)
            out.print(f"{found}\n", markup=False)
            row = {"run": run.name, "cause": found.label, "text": found.text, "next": found.next_step}
            rows.append(row)
            units.append(found.units.assign(run=run.name))
        except (OSError, ValueError) as error:
            out.print(f"cannot be diagnosed: {error}\n", soft_wrap=True, markup=False)
    if not rows:
        raise typer.Exit(1)
    write_found({"causes": pd.DataFrame(rows), "units": pd.concat(units, ignore_index=True)}, json, csv)


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
    with continuing(), refusing(ConfigError, OSError, ValueError):
        times = times_of(budget)
        found = prescribe_run(
            runs[0], times, seeds, lambda line: out.print(line, style="dim", markup=False), begin.value
        )
    if len(found.table):
        view = prescription_view(found.table)
        console(view).print(view)
    out.print(found.text, markup=False)
    for name, reason in found.left_out.items():
        out.print(f"left out: {name} ({reason})", markup=False)
    if found.command:
        print(f"\n{found.command}")
    write_found({"arms": found.table}, json, csv, cure=found.cure, command=found.command, text=found.text)


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

    with continuing(), refusing(ConfigError, ValueError, OSError):
        found = run(words or [], axis, between, share, seeds, resolution, scale, checks, output)
    shown = view(found)
    console(shown).print(shown)
    write_found({"edges": found.table()}, json, csv, **found.as_json())
    if found.errors:
        raise typer.Exit(1)
