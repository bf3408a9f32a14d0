"""Guarded console output: write errors lose no results, and untrusted text cannot control the terminal.

The scripts replace `sys.stdout` with `Output`. A failed write is reported at the end, and further output is
discarded, so that a report is still written if nobody reads the console.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from harness.words import printable

COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")  # the only control sequences in our standard output
NOTHING = re.compile("(?!)")
MOVES = re.compile(r"(\x1b\[[0-9;?]*[A-Za-z]|\r)")  # progress displays also use these


class Output:
    """A text stream whose writes never raise OSError.

    Args:
        stream: a text stream; None if it was closed when the process started.
        allowed: control sequences to pass through, as one group; others are escaped.

    Attributes:
        failed: the error after which nothing more is written; None if there is none.
    """

    def __init__(self, stream: TextIO | None, allowed: re.Pattern[str] = COLOUR) -> None:
        self.failed: OSError | None = None
        if stream is None:
            stream = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (for the life of the process)
            self.failed = OSError(errno.EBADF, os.strerror(errno.EBADF))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
        self._stream = stream
        coloured = stream.isatty() or "FORCE_COLOR" in os.environ  # otherwise we write no sequences
        self._allowed = allowed if coloured else NOTHING

    def write(self, text: str) -> int:
        pieces = self._allowed.split(text)  # odd pieces are control sequences
        clean = "".join(piece if k % 2 else printable(piece) for k, piece in enumerate(pieces))
        self._try(lambda: self._stream.write(clean))
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, act: Callable[[], Any]) -> None:
        if self.failed is not None:
            return
        try:
            act()
        except OSError as error:
            self.failed = error
            with suppress(OSError):  # redirect the rest of the buffer to the null device
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def run(name: str, command: Callable[[], Any]) -> int:
    """Run a command with guarded output, and return its exit code.

    Args:
        name: name of the script, for messages.
        command: the command; it may raise `SystemExit`.

    Returns:
        The command's own code, or 1 instead of 0 if its output could not be written. A closed pipe
        (`| head`) is not an error. 130 after an interrupt, 2 if the current folder does not exist.
    """
    _open_standard_streams()
    sys.stdout = output = Output(sys.stdout)  # type: ignore[assignment]
    sys.stderr = Output(sys.stderr, MOVES)  # type: ignore[assignment]
    if not _has_folder():
        print(f"{name}: the current folder is not there any more", file=sys.stderr)
        return 2
    code: Any = 0
    try:
        command()
    except SystemExit as ended:
        code = ended.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except KeyboardInterrupt:
        print(f"{name}: interrupted.", file=sys.stderr)
        code = 130
    output.flush()
    code = code if isinstance(code, int) else int(code is not None)
    if output.failed is not None and output.failed.errno != errno.EPIPE:
        print(f"{name}: standard output cannot be written ({output.failed.strerror})", file=sys.stderr)
        code = code or 1
    sys.stderr.flush()
    return code


def _has_folder() -> bool:
    try:
        Path.cwd()
    except OSError:
        return False
    return True


def _open_standard_streams() -> None:
    """Open closed standard streams; otherwise the next opened file would receive the output of libraries."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
