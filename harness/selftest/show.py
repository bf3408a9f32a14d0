"""The score: a table per group, every difference from the truth, and a summary in one line."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.report.console_parts import plain_table
from harness.selftest.run import FAILED, PASSED, UNAVAILABLE, Outcome

SHOWN = 3  # shown differences per case; one fault causes many


def sentence(outcomes: Sequence[Outcome], device: str) -> str:
    """The score in one line; cases that are not available are not counted.

    Example:
        >>> sentence([Outcome("mlp", "plain", PASSED), Outcome("cell", "shared", FAILED)], "cpu")
        '1 of 2 passed on torch ..., python ..., device cpu'
    """
    passed, ran = _score(outcomes)
    where = f"torch {torch.__version__}, python {platform.python_version()}, device {device}"
    absent = len(outcomes) - ran
    return f"{passed} of {ran} passed on {where}" + (f"; {absent} not available" if absent else "")


def sound(outcomes: Sequence[Outcome]) -> bool:
    """Whether something passed and nothing failed."""
    states = {one.status for one in outcomes}
    return PASSED in states and FAILED not in states


def view(outcomes: Sequence[Outcome], device: str, *, verbose: bool = False) -> RenderableType:
    """Tables and score of a finished run.

    Args:
        outcomes: outcomes of all cases.
        device: the device on which they ran.
        verbose: whether to list every case.
    """
    parts: list[RenderableType] = [_cases(outcomes)] if verbose else []
    parts.append(_groups(outcomes))
    if any(one.status == FAILED for one in outcomes):
        parts.append(_failures(outcomes))
    parts += [Text(f"{one.name}: not available: {one.reason}") for one in outcomes if one.reason]
    return Group(*parts, Text(sentence(outcomes, device)))


def as_json(outcomes: Sequence[Outcome], device: str) -> dict[str, Any]:
    """The score and the outcomes as JSON, for other programs."""
    passed, ran = _score(outcomes)
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": device,
        "passed": passed,
        "total": ran,
        "not_available": len(outcomes) - ran,
        "cases": [
            {
                "name": one.name,
                "group": one.group,
                "status": one.status,
                "reason": one.reason,
                "seconds": round(one.seconds, 3),
                "differences": [difference._asdict() for difference in one.differences],
            }
            for one in outcomes
        ],
    }


def _score(outcomes: Sequence[Outcome]) -> tuple[int, int]:
    """How many cases passed, and how many ran."""
    states = [one.status for one in outcomes]
    return states.count(PASSED), len(states) - states.count(UNAVAILABLE)


def _table(*columns: str) -> Table:
    table = plain_table()
    for name in columns:
        table.add_column(name, justify="right" if name in ("passed", "seconds") else "left", overflow="fold")
    return table


def _groups(outcomes: Sequence[Outcome]) -> Table:
    table = _table("cases", "passed", "seconds")
    for group in dict.fromkeys(one.group for one in outcomes):
        members = [one for one in outcomes if one.group == group]
        passed, ran = _score(members)
        score = Text(f"{passed}/{ran}", style="" if passed == ran else "bold red")
        table.add_row(Text(group), score, f"{sum(one.seconds for one in members):.1f}")
    return table


def _cases(outcomes: Sequence[Outcome]) -> Table:
    table = _table("cases", "case", "result", "seconds")
    for one in outcomes:
        style = "bold red" if one.status == FAILED else ""
        table.add_row(Text(one.group), Text(one.name), Text(one.status, style=style), f"{one.seconds:.2f}")
    return table


def _failures(outcomes: Sequence[Outcome]) -> Table:
    table = _table("case", "check", "expected", "got")
    for one in outcomes:
        for i, (where, expected, got) in enumerate(one.differences[:SHOWN]):
            table.add_row(Text("" if i else one.name), Text(where), Text(expected), Text(got))
        more = len(one.differences) - SHOWN
        if more > 0:
            table.add_row("", Text(f"… and {more} more"), "", "")
    return table
