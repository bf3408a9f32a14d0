"""Show the progress of a long computation at a terminal."""

from __future__ import annotations

import sys
import time

QUIET = 3.0  # seconds before the first message and between messages


class Progress:
    """Shows progress on stderr if it is a terminal, but not in the first seconds.

    Args:
        what: name of the computation.
        total: number of parts.
        parts: name of the parts.
    """

    def __init__(self, what: str, total: int, parts: str) -> None:
        self._what, self._total, self._done, self._parts = what, total, 0, parts
        self._begin = self._said = time.monotonic()
        self._line = False

    def step(self) -> None:
        """Count a completed part."""
        self._done += 1
        now = time.monotonic()
        if now - self._said < QUIET or not sys.stderr.isatty():
            return
        self._said, self._line = now, True
        shown = f"{self._what}: {self._done} of {self._total} {self._parts}, {now - self._begin:.0f} s"
        print(f"\r{shown}", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the display."""
        if self._line:
            print(file=sys.stderr)
