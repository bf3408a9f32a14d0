"""Commands that run a model: `harness-tools scan` and `selftest`."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from harness.report.terminal_width import console
from harness.tools_io import called, probe_of, refusing, source_of


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
    from harness.report.export import check_suffix, export

    if fail_over is not None and not 0 <= fail_over <= 1:
        hint = f" ({fail_over / 100:g} for {fail_over:g} %)" if 1 < fail_over <= 100 else ""
        raise typer.BadParameter(f"--fail-over: expected a share in [0, 1], but got {fail_over:g}{hint}")
    if plan and (out or fail_over is not None):
        raise typer.BadParameter("--plan counts nothing: --out and --fail-over mean nothing with it")
    try:
        for path in out or ():
            check_suffix(path)
        model = called(factory)
        inputs = called(batches) if batches else probe_of(data, override or [])
        if plan:
            first = islice(as_batches(inputs, len(arguments_of(model).required)), 1)
            print(scan_model(model, list(first)).plan)
            return
        found = scan_model(model, inputs)
        print(found)
        for path in out or ():
            path.parent.mkdir(parents=True, exist_ok=True)
            export(found.units, path, subject=factory, source=source_of(factory))
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
