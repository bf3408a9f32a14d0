"""The script `harness`: a sweep's workers are begun first, then what the command line takes is imported."""

from __future__ import annotations

import atexit
import os
import sys

from harness.sweeps.preload import prepare
from harness.terminal import run

SWEEP = {"-m", "--multirun"}
PLACES = {"--config-dir", "--config-path", "--config-name", "-cd", "-cp", "-cn"}  # where configurations are


def entry() -> None:
    """Carry out `sys.argv`, and then out, since tearing down torch's modules takes most of a second.

    Where Hydra's launchers were at work, their processes have to be taken down in the ordinary way.
    """
    options = {word.partition("=")[0] for word in sys.argv[1:] if word.startswith("-")} - PLACES
    theirs = any(word.startswith("hydra/launcher=") for word in sys.argv[1:])
    if options and options <= SWEEP and not theirs:  # with any other option nothing is trained by our workers
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
