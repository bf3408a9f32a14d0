"""`harness-tools`: what can be done with runs and models that are there, and the self-test."""

from __future__ import annotations

import sys
import warnings
from typing import Annotated, Any

import typer

from harness.tools_causes import confirm, diagnose, prescribe, risk, threshold
from harness.tools_models import scan, selftest
from harness.tools_runs import compare, dashboard, report, status

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


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


# In the order of the help text.
COMMANDS = (report, compare, dashboard, status, scan, selftest, diagnose, risk, confirm, prescribe, threshold)
for command in COMMANDS:
    app.command()(command)
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
