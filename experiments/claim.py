"""A claim: a sentence, and all that decides it, fixed before the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd
from matplotlib.figure import Figure

from experiments.verdicts import Verdict
from harness.store.runs import Run

Budget = Literal["toy", "small", "standard", "full"]
#: On which claims are tried, as the page has them: name → title.
DATA_SETS = {
    "digits": "digits",
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10 part",
}
LOOKED_AT = ("digits", "mnist")  # when rules were fixed; what is found on the others confirms them
#: Of a claim whose design was changed after its results on these had been seen: CIFAR-10 alone confirms it.
SEEN = ("digits", "mnist", "fashion_mnist")
EVERY_SET = tuple(DATA_SETS)
Decide = Callable[[pd.DataFrame], Verdict]
Draw = Callable[[pd.DataFrame, Verdict], Figure]
Read = Callable[[Run], Mapping[str, Any]]


@dataclass(frozen=True)
class Sweep:
    """Runs, as overrides of the ordinary command line.

    Attributes:
        overrides: e.g. ("optim=adam", "optim.lr=1e-3,1e-2"); they come after the budget's own (seeds, data,
            epochs; see `budgets`), so that a later value of a key holds.
        name: goes into the table's column `sweep`, for arms that overrides alone do not tell apart.
        budgets: budget → further overrides, which come after these.
        on: data set → further overrides, which come last.
    """

    overrides: tuple[str, ...]
    name: str = ""
    budgets: Mapping[str, Sequence[str]] = field(default_factory=dict)
    on: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """One claim = one file in `experiments/claims`, which is named as the claim.

    Attributes:
        name: as on the command line.
        sentence: as textbooks, lectures or the paper say it.
        source: who says it: CS231n, textbook folklore, or a paper by name and arXiv id.
        metric: what is measured, in words.
        interest: the smallest effect of interest, and why, in words.
        design: which runs are compared, and the controls that separate explanations.
        decide: table → verdict; a pure function.
        figure: table and verdict → figure.
        sweeps: the runs; their table has one row per run (`experiments.tables`).
        read: further outcomes of one run, from its stored tables.
        measure: instead of sweeps: budget → table, with a column `seed` for what is repeated; (budget, data
            set) → table if it has data sets.
        data_sets: on which it is tried; None: of sweeps all but CIFAR-10, of a measure data of its own.
        looked_at: those whose results were known when its design was fixed; the others confirm it.
        kind: "textbook" or "paper".
        beside: table → what else it tells, in a sentence or two that decide nothing.
        comments: word of a verdict → what has to be added to it; plain prose for the page.
    """

    name: str
    sentence: str
    source: str
    metric: str
    interest: str
    design: str
    decide: Decide
    figure: Draw
    sweeps: tuple[Sweep, ...] = ()
    read: Read | None = None
    measure: Callable[..., pd.DataFrame] | None = None
    data_sets: tuple[str, ...] | None = None
    looked_at: tuple[str, ...] = LOOKED_AT
    kind: Literal["textbook", "paper"] = "textbook"
    beside: Callable[[pd.DataFrame], str] | None = None
    comments: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if bool(self.sweeps) == (self.measure is not None):
            raise ValueError(f"{self.name}: expected either sweeps or a measure, but got both or neither")

    @property
    def tried_on(self) -> tuple[str, ...]:
        """Names of its data sets; one empty name where it has data of its own."""
        if self.data_sets is not None:
            return self.data_sets
        return SEEN if self.sweeps else ("",)
