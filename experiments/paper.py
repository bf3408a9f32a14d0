"""A paper's number beside ours: one row of PAPERS.md, and the registry of all rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from experiments.verdicts import Verdict
from harness.compare.bootstrap import mean_interval
from harness.config.errors import did_you_mean

FOLDER = Path(__file__).parent / "papers"
AGREES, DIFFERS, UNDECIDED = "agrees", "differs", "undecided"
NOT_RUN = "command given, not run"


@dataclass(frozen=True)
class Row:
    """A number that a paper gives, and how it is measured again.

    Attributes:
        name: as on the command line.
        source: the paper, by name and arXiv id, and where the number stands.
        read: where the number was read: in the source itself, in its abstract, or in somebody else's text.
        theirs: the number, in words.
        setting: what is run here, exactly.
        scaled: what is smaller than in the paper; then only the direction is judged. Empty: nothing.
        measure: folder of data sets → tidy table with a column `seed`; None: there is no code for it here.
        tell: table → our number with its interval.
        decide: table → `AGREES`, `DIFFERS` or `UNDECIDED`, a pure function.
        heavy: why it is run only when named: hours, or a GPU. Empty: it is run with the others.
        command: what runs it, where that is not this row's own command.
    """

    name: str
    source: str
    read: Literal["source", "abstract", "secondary"]
    theirs: str
    setting: str
    scaled: str = ""
    measure: Callable[[Path], pd.DataFrame] | None = None
    tell: Callable[[pd.DataFrame], str] | None = None
    decide: Callable[[pd.DataFrame], str] | None = None
    heavy: str = ""
    command: str = ""

    def __post_init__(self) -> None:
        if self.measure is not None and (self.tell is None or self.decide is None):
            raise ValueError(f"{self.name}: what is measured needs a tell and a decide")
        if self.measure is None and not (self.heavy and self.command):
            raise ValueError(f"{self.name}: what is not measured here needs a command, and why (heavy)")


@cache
def rows() -> tuple[Row, ...]:
    """Every row, in the order of files in experiments/papers and of `ROWS` within each.

    Raises:
        ValueError: two rows have the same name.
    """
    stems = sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_"))
    found = tuple(row for stem in stems for row in import_module(f"experiments.papers.{stem}").ROWS)
    if len({row.name for row in found}) < len(found):
        raise ValueError("experiments/papers: two rows have the same name")
    return found


def row(name: str) -> Row:
    """A row by its name.

    Raises:
        ValueError: there is none.
    """
    by_name = {one.name: one for one in rows()}
    if name not in by_name:
        raise ValueError(f"--papers: there is no row {name!r}. {did_you_mean(name, list(by_name))}")
    return by_name[name]


def word_of(verdict: Verdict) -> str:
    """What contrasts say about a paper's sentence: all hold, one is refuted, or neither.

    Example:
        >>> from experiments.verdicts import Part, judge
        >>> word_of(judge(Part("x", np.full(8, 0.5), 0.1)))
        'agrees'
    """
    words = {finding.word for finding in verdict.findings}
    if words == {"supported"}:
        return AGREES
    return DIFFERS if "refuted" in words else UNDECIDED


def share(table: pd.DataFrame, outcome: str, **arm: object) -> str:
    """Mean of an outcome over an arm's seeds in per cent, with the 95 % interval.

    Example:
        >>> share(pd.DataFrame({"seed": range(6), "dead": [0.1] * 6, "a": "x"}), "dead", a="x")
        '10.0 % (10.0 … 10.0)'
    """
    chosen = np.logical_and.reduce([np.ones(len(table), bool), *(table[k] == v for k, v in arm.items())])
    values = table[chosen].groupby("seed")[outcome].mean().to_numpy(float)
    low, high = mean_interval(values, 0.95, (0.0, 1.0))
    return f"{100 * values.mean():.1f} % ({100 * low:.1f} … {100 * high:.1f})"
