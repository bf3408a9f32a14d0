"""Width of a command's output: that of the terminal, of COLUMNS, or of its tables."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table

PLAIN = 110  # columns in a file or a pipe, unless a table needs more
WIDEST = 400


def console(*shown: RenderableType) -> Console:
    """A console for the output of a command.

    Args:
        shown: what it will show; in a file or a pipe, tables among these get room for every word.

    Example:
        >>> console().width >= 20
        True
    """
    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit():
        return Console(highlight=False)
    free = Console(width=WIDEST)
    widths = [Measurement.get(free, free.options, table).maximum for table in _tables(shown)]
    return Console(width=max(PLAIN, *widths, 0), highlight=False)


def _tables(shown: tuple[RenderableType, ...]) -> Iterator[Table]:
    for one in shown:
        if isinstance(one, Table):
            yield one
        elif isinstance(one, Group):
            yield from _tables(tuple(one.renderables))
