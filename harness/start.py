"""The script `harness`: a sweep's workers are begun first, then what the command line takes is imported."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys

from harness.sweeps.ahead import prepare

#: Words after which no sweep of ours follows: nothing is trained, or Hydra does it.
ELSEWHERE = {"--dry-run", "--help", "-h", "--version", "--info", "-i", "--cfg", "-c", "--hydra-help"}


def entry() -> None:
    """Carry out `sys.argv`, and then out, since tearing down torch's modules takes most of a second.

    Where Hydra's launchers were at work, their processes have to be taken down in the ordinary way.
    """
    words = set(sys.argv[1:])
    ours = not any(word.startswith("hydra/launcher=") for word in words)
    if ours and words & {"-m", "--multirun"} and not words & ELSEWHERE:
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
