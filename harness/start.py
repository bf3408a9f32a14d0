"""The script `harness`: a sweep's workers are begun first, then what the command line takes is imported."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys

from harness.sweeps.ahead import prepare

SWEEP = {"-m", "--multirun"}


def entry() -> None:
    """Carry out `sys.argv`, and then out, since tearing down torch's modules takes most of a second.

    Where Hydra's launchers were at work, their processes have to be taken down in the ordinary way.
    """
    options = {word for word in sys.argv[1:] if word.startswith("-")}
    theirs = any(word.startswith("hydra/launcher=") for word in sys.argv[1:])
    if options and options <= SWEEP and not theirs:  # with any other option nothing is trained by our workers
        prepare()
    code: int | str | None = 0
    launched: list[bool] = []
    try:
        from harness.cli import launched, main

        main()
    except SystemExit as ended:
        code = ended.code
    except KeyboardInterrupt:
        print("harness: interrupted; nothing was begun.", file=sys.stderr)
        code = 130
    if launched:
        sys.exit(code)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))
