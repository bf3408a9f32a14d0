"""How far a long computation is, for who waits at a terminal."""

from __future__ import annotations

import sys
import time

QUIET = 3.0  # seconds after which, and between which, something is said


class Progress:
    """Says on stderr, if that is a terminal, how far a long computation is; nothing in the first seconds.

    Args:
        what: is computed.
        total: parts of it.
        parts: what they are called.
    """

    def __init__(self, what: str, total: int, parts: str) -> None:
        self._what, self._total, self._done, self._parts = what, total, 0, parts
        self._begin = self._said = time.monotonic()
        self._line = False

    def step(self) -> None:
        """A part is done."""
        self._done += 1
        now = time.monotonic()
        if now - self._said < QUIET or not sys.stderr.isatty():
            return
        self._said, self._line = now, True
        shown = f"{self._what}: {self._done} of {self._total} {self._parts}, {now - self._begin:.0f} s"
        print(f"\r{shown}", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        """All is done."""
        if self._line:
            print(file=sys.stderr)
