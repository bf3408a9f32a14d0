"""Width of a command's output: that of the terminal, of COLUMNS, or of its tables."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

PLAIN = 110  # columns in a file or a pipe, unless a table needs more
WIDEST = 400
LABEL = 16  # columns that a label keeps in a narrow terminal, where it goes on in the next line


def console(*shown: RenderableType) -> Console:
    """A console for the output of a command.

    Args:
        shown: what it will show; in a file or a pipe, tables among these get room for every word, and in a
            terminal for every number, so that the lines of a wide table may go on in the next one.

    Example:
        >>> console().width >= 20
        True
    """
    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit():
        own = Console(highlight=False)
        needed = max(map(_keep_numbers, _tables(shown)), default=0)
        return own if needed <= own.width else Console(width=needed, highlight=False)
    free = Console(width=WIDEST)
    widths = [Measurement.get(free, free.options, table).maximum for table in _tables(shown)]
    return Console(width=max(PLAIN, *widths, 0), highlight=False)


def _tables(shown: tuple[RenderableType, ...]) -> Iterator[Table]:
    for one in shown:
        if isinstance(one, Table):
            yield one
        elif isinstance(one, Group):
            yield from _tables(tuple(one.renderables))


def _keep_numbers(table: Table) -> int:
    """Give every column of a table the room that it needs at least; returns the width of all."""
    for column in table.columns:
        column.min_width = _width(column)
    _, right, _, left = table.padding
    return sum((column.min_width or 0) + left + right + 1 for column in table.columns) + 1


def _width(column: Column) -> int:
    cells = [cell for cell in (column.header, *column.cells) if isinstance(cell, str)]
    longest = max((Text.from_markup(cell).cell_len for cell in cells), default=0)
    return longest if column.no_wrap else min(longest, LABEL)
