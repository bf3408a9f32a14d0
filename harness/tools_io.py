"""Inputs and outputs of the commands of `harness-tools`: folders of runs, models by name, files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.report.terminal_width import console

if TYPE_CHECKING:
    import pandas as pd

    from harness.report.export import Source
    from harness.store.runs import Run, Runs

Folder = Annotated[Path, typer.Argument(help="A run's folder, or any folder above.")]


def _in_a_folder(path: Path | None) -> Path | None:
    """Refuse what cannot be written before anything is computed."""
    if path is not None and (str(path) == "-" or not path.expanduser().absolute().parent.is_dir()):
        raise typer.BadParameter(f"expected a path in a folder that is there, but got {path}")
    return path


Json = Annotated[Path | None, typer.Option(help="Write all tables to this file.", callback=_in_a_folder)]
Csv = Annotated[Path | None, typer.Option(help="Write each table to a file in this folder.")]


@contextmanager
def refusing(*errors: type[BaseException]) -> Iterator[None]:
    """Turn these errors in the block into usage errors.

    Raises:
        typer.BadParameter: with the message of the error.
    """
    try:
        yield
    except errors as error:
        raise typer.BadParameter(str(error)) from None


@contextmanager
def continuing() -> Iterator[None]:
    """End an interrupted command with code 130, and say that it can be continued."""
    try:
        yield
    except KeyboardInterrupt:
        print("harness-tools: interrupted; the same command continues.", file=sys.stderr)
        raise typer.Exit(130) from None


def write_found(tables: dict[str, pd.DataFrame], json: Path | None, csv: Path | None, **facts: Any) -> None:
    """Write the tables that a command has shown to the requested files."""
    if json is None and csv is None:
        return
    from harness.report.written import write_tables

    try:
        say_written(write_tables(tables, json, csv, **facts))
    except OSError as error:
        raise typer.BadParameter(f"cannot write to {error.filename} ({error.strerror or error})") from None


def say_written(paths: list[Path]) -> None:
    """Print the paths of written files."""
    for path in paths:
        console().print(f"written     {path}", soft_wrap=True, markup=False)


def serve_folder(path: Path, port: int | None) -> None:
    """Run TensorBoard until it is interrupted."""
    from harness.report.tensorboard.serve import serve, wait

    try:
        with refusing(OSError):
            print(f"TensorBoard is at {serve(path, port)} (Ctrl+C ends it)", flush=True)
            wait()
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def called(place: str) -> Any:
    """Call `package.module:function` and return its result; the current folder is searched too."""
    from harness.config.targets import call, imported

    return call(place, imported(place, ""), {}, "")


def source_of(place: str) -> Source | None:
    """Where `package.module:function` is defined; None if it has no file below the current folder."""
    import inspect

    from harness.config.targets import imported
    from harness.report.export import Source

    try:
        function: Any = inspect.unwrap(imported(place, ""))
        path = Path(inspect.getsourcefile(function) or "").resolve().relative_to(Path.cwd().resolve())
        return Source(path.as_posix(), inspect.getsourcelines(function)[1])
    except (TypeError, OSError, ValueError):
        return None


def probe_of(name: str, overrides: list[str]) -> Any:
    """Return the inputs of the held-out probe of one of our data sets."""
    import torch

    from harness.config import compose
    from harness.training.data import load

    loaded = load(compose([f"data={name}", *overrides]), torch.device("cpu"), torch.float32)
    return (x for x, _ in loaded.probe_batches())


def run_in(path: Path) -> Run:
    """Open the single run in a folder.

    Raises:
        typer.BadParameter: there is no run, or more than one.
    """
    runs = runs_in(path)
    if len(runs) != 1:
        raise typer.BadParameter(f"expected the folder of one run, but there are {len(runs)} runs in {path}")
    return runs[0]


def runs_in(path: Path) -> Runs:
    """Open the runs in a folder, leaving out damaged ones with a message.

    Raises:
        typer.BadParameter: there are no runs.
        typer.Exit: all runs are damaged.
    """
    from harness.store.runs import Runs, open_runs

    with refusing(FileNotFoundError):
        runs = open_runs(path)
    if not len(runs):
        raise typer.BadParameter(f"there is no run in {path} (a run has config.yaml and status.json)")
    for damage in filter(None, (run.damage for run in runs)):
        print(f"harness-tools: left out: {damage}", file=sys.stderr)
    if all(run.damage for run in runs):
        raise typer.Exit(1)
    return Runs([run for run in runs if not run.damage])


def times_of(budget: str) -> float:
    """Parse a budget such as "2x".

    Raises:
        ValueError: it is not a number.

    Example:
        >>> times_of("2x"), times_of("1.5")
        (2.0, 1.5)
    """
    try:
        return float(budget.removesuffix("x"))
    except ValueError:
        raise ValueError(f"--budget: expected a number of times, e.g. 2x, but got {budget}") from None
