"""Search for a cure by successive halving, independent of how the arms are trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Generic

import pandas as pd

from harness.trials.cures import C
from harness.trials.halving import FINALISTS, Round
from harness.trials.judging import UNTOUCHED, judged, recommended

Say = Callable[[str], None]


@dataclass(frozen=True)
class Search(Generic[C]):
    """Result of a search.

    Attributes:
        cures: name → cure, most likely first, combinations last.
        table: as `Prescription.table`.
        final: `judged` table of the last round.
        scale: scale of the metric: what counts as one whole unit.
    """

    cures: dict[str, C]
    table: pd.DataFrame
    final: pd.DataFrame
    scale: float

    @property
    def before(self) -> float:
        """Mean metric of the unchanged training."""
        return float(self.table.loc[self.table["cure"].eq(UNTOUCHED), "metric"].iloc[0])

    def recommended(self, *, learned: bool) -> str:
        """Name of the recommended cure; "" if none helped (see `judging.recommended`)."""
        changes = {name: cure.change for name, cure in self.cures.items()}
        return recommended(self.final, changes, list(self.cures), learned=learned, scale=self.scale)


def search(
    candidates: Sequence[C],
    plan: Sequence[Round],
    train: Callable[[Sequence[C], Round, bool], pd.DataFrame],
    label: str,
    say: Say | None = None,
    scale: float = 1.0,
    fits: Callable[[C], bool] = lambda _: True,
) -> Search[C]:
    """Carry out the rounds.

    Args:
        candidates: the cures, most likely first.
        plan: result of `halving.rounds`.
        train: (arms, round, whether it is the last one, which also trains the unchanged run on other seeds)
            → trials, as `judging.judged` takes them.
        label: label of the diagnosis. The best cure that addresses it always stays in.
        say: called with a line of text at the start of every round.
        scale: scale of the metric.
        fits: whether a combination of two cures can be tried.
    """
    arms, known, judgements = list(candidates), {cure.name: cure for cure in candidates}, []
    for number, one in enumerate(plan):
        last = number == len(plan) - 1
        if number:
            arms = _chosen(judgements[-1][1], arms, one, label, last=last)
            if last:
                pairs = (a + b for a, b in combinations(arms, 2) if not a.groups & b.groups)
                arms += [pair for pair in pairs if fits(pair)][:1]
            known |= {cure.name: cure for cure in arms}
        else:
            arms = arms[: one.arms - 1]
        if say:
            seeds = f"{one.seeds} seed" + "s" * (one.seeds > 1)
            say(f"round {number + 1} of {len(plan)}: {len(arms)} cures, {one.steps:,} steps, {seeds}")
        judgements.append((one.steps, judged(train(arms, one, last))))
    table = _tabled(judgements, {name: ", ".join(cure.labels) for name, cure in known.items()})
    return Search(known, table, judgements[-1][1], scale)


def _chosen(table: pd.DataFrame, arms: list[C], one: Round, label: str, *, last: bool) -> list[C]:
    """Return the best cures of a round; the best one that addresses the cause always stays in."""
    by_name = {cure.name: cure for cure in arms}
    ranked = [by_name[name] for name in _ranking(table) if name in by_name]
    best = ranked[: FINALISTS if last else one.arms - 1]
    own = next((cure for cure in ranked if label in cure.labels), None)
    if own and own not in best:
        best[-1] = own
    return best


def _ranking(table: pd.DataFrame) -> list[str]:
    """Rank arms by the metric, rounded to hundredths of its range, then by the dead share."""
    spread = max(float(table["metric"].max() - table["metric"].min()), 1e-12)
    rank = -(table["metric"] / spread).round(2)
    return [
        str(name) for name in table.assign(rank=rank).sort_values(["rank", "dead"], kind="stable")["cure"]
    ]


def _tabled(judgements: Sequence[tuple[int, pd.DataFrame]], stands_for: dict[str, str]) -> pd.DataFrame:
    """Combine the rounds: every arm keeps the row of its last round."""
    seen: set[str] = set()
    parts = []
    for steps, table in reversed(judgements):
        part = table[~table["cure"].isin(seen)]
        seen |= set(part["cure"])
        parts.append(part.assign(steps=steps))
    whole = pd.concat(parts, ignore_index=True)
    whole.insert(1, "stands_for", whole["cure"].map(stands_for).fillna(""))
    whole.insert(3, "steps", whole.pop("steps"))
    return whole
