"""The script `harness`: start preparing a sweep's workers before importing the command line."""

from __future__ import annotations

import atexit
import os
import sys

from harness.sweeps.preload import prepare
from harness.terminal import run

SWEEP = {"-m", "--multirun"}
PLACES = {"--config-dir", "--config-path", "--config-name", "-cd", "-cp", "-cn"}  # search path options


def entry() -> None:
    """Run the command line, and exit without the usual cleanup, which takes torch most of a second.

    If one of Hydra's launchers ran, exit normally, so that its processes are shut down.
    """
    options = {word.partition("=")[0] for word in sys.argv[1:] if word.startswith("-")} - PLACES
    theirs = any(word.startswith("hydra/launcher=") for word in sys.argv[1:])
    if options and options <= SWEEP and not theirs:  # with other options, our workers train nothing
        prepare()
    launched: list[bool] = []

    def command() -> None:
        nonlocal launched
        from harness.cli import launched, main

        main()

    code = run("harness", command)
    if launched:
        sys.exit(code)
    atexit._run_exitfuncs()
    os._exit(code)
