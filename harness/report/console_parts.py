"""Parts shared by the commands: tables with a title on the left, and progress bars."""

from __future__ import annotations

import sys
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table


def plain_table(title: str = "", under: str = "", **options: Any) -> Table:
    """A table without columns.

    Args:
        title: text above the table.
        under: small print below the title.
        options: further arguments of `rich.table.Table`.
    """
    text = escape(title) + (f"\n[not bold dim]{escape(under)}[/]" if under else "")
    look: dict[str, Any] = {"box": SIMPLE_HEAD, "padding": (0, 0, 0, 1), "pad_edge": False}
    return Table(title=text or None, title_justify="left", title_style="bold", **look | options)


def progress_bar(text: str, width: int = 24) -> Progress:
    """A progress bar on stderr, if that is a terminal.

    Args:
        text: text behind the bar, with `{task.fields[…]}`.
        width: width of the bar.
    """
    return Progress(
        BarColumn(bar_width=width),
        MofNCompleteColumn(),
        TextColumn(text),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
