"""All tables of one comparison, and its conclusions in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.compare.correction import check_correction
from harness.compare.design import held, settings
from harness.compare.dose_curves import critical, numeric_axis
from harness.compare.effect_sizes import effects
from harness.compare.frames import OUTCOMES, baseline_of, codes, columns_of, need, outcomes
from harness.compare.life_tables import Lives, lives
from harness.compare.log_rank import logrank
from harness.compare.ranks import ranking
from harness.compare.summary_text import alias_notes, floor_note, sentences, within_notes
from harness.compare.survival_curves import survival

if TYPE_CHECKING:
    from harness.store.runs import Runs

LEVELS = 24  # largest number of levels of a factor with effects and curves; more come from a random search
RUNS = 512  # largest number of runs whose censuses are read by default


@dataclass(frozen=True)
class Comparison:
    """Tables made by the functions of `harness.compare`; None if there is nothing to report.

    Attributes:
        outcomes: one row per run.
        effects: of the factor, or of all factors one after the other (column `factor`), corrected together.
        ranking: ranking for the first outcome, if no factor is given.
        critical: critical values along numeric factors, per setting of the others.
        survival: per factor (column `factor`) and setting of `by`: the last row of each curve.
        logrank: tests, likewise.
        lives: from which the last two were made.
        sentences: the conclusions.
        notes: what one must know to read them.
        by: the factors whose settings are kept apart.
        correction: of the p-values of effects.
        confidence: of the intervals.
    """

    outcomes: pd.DataFrame
    effects: pd.DataFrame | None
    ranking: pd.DataFrame | None
    critical: pd.DataFrame | None
    survival: pd.DataFrame | None
    logrank: pd.DataFrame | None
    lives: Lives | None
    sentences: list[str]
    notes: list[str]
    by: tuple[str, ...] = ()
    correction: str = "max_t"
    confidence: float = 0.95

    def __repr__(self) -> str:
        """The conclusions, and which tables there are."""
        tables = [name for name, table in vars(self).items() if isinstance(table, pd.DataFrame)]
        notes = (f"Note: {note}" for note in self.notes)
        return "\n".join([*self.sentences, *notes, f"Tables: {', '.join(tables)}"])


def compare_runs(
    runs: Runs,
    factor: str | None = None,
    by: Sequence[str] = (),
    measures: Sequence[str] = OUTCOMES,
    *,
    baseline: Any = None,
    share: float = 0.5,
    correction: str = "max_t",
    confidence: float = 0.95,
    census: bool | None = None,
) -> Comparison:
    """Compare runs along one factor, or along all factors that vary.

    Args:
        runs: any runs.
        factor: a column of `runs.table`; None: all factors, and their ranking.
        by: factors whose settings are kept apart.
        measures: outcomes; ranking, critical values and sentences are about the first one.
        baseline: level of `factor` with which the others are compared.
        share: share of the outcome at critical values.
        correction: "max_t", "holm", "fdr" or "none"; "max_t" is Holm's for log-rank tests.
        confidence: confidence of the intervals.
        census: whether to read the censuses, for survival; None: for up to 512 runs.

    Raises:
        ValueError: there is nothing to compare, or an argument does not apply to these runs.
    """
    if not len(runs):
        raise ValueError("runs: expected at least two runs, but there are none")
    if baseline is not None and factor is None:
        raise ValueError("baseline: is a level of one factor; give that factor too")
    if not measures:
        raise ValueError(f"outcome: expected one or more of {', '.join(OUTCOMES)}, diverged")
    if not 0 < share < 1:
        raise ValueError(f"share: expected a number in (0, 1), but got {share}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a number in (0, 1), but got {confidence}")
    check_correction(correction)
    asked = [*([factor] if factor else []), *by]
    frame = outcomes(runs, asked)
    need(frame, *asked)
    chosen = [factor] if factor else [name for name in columns_of(frame) if name not in by]
    if not chosen:
        raise ValueError("factor: nothing but the seed varies in these runs, so there is nothing to compare")
    many = [name for name in chosen if frame[name].nunique() > LEVELS]
    few = [name for name in chosen if name not in many]
    notes = alias_notes(frame.attrs.get("aliases", {}))
    for name in many:
        notes.append(f"{name} has {frame[name].nunique():,} values: no table of each against the first.")
    levels = {name: codes(frame[name])[1] for name in few}
    base = levels[factor][baseline_of(levels[factor], baseline, factor)] if factor in levels else None
    found = None
    if few:
        options: dict[str, Any] = {"confidence": confidence, "correction": correction}
        found = effects(frame, few, by, measures, baseline=baseline, **options)
        notes.append(floor_note(found, correction))
    of_rest = "holm" if correction == "max_t" else correction
    main = measures[0]
    ranked = None
    if factor is None and len(columns_of(frame)) > 1:
        ranked = ranking(frame, main, correction=correction, confidence=confidence)
        notes += within_notes(ranked.attrs["within"])
    crossings = [
        critical(frame, name, held(frame, name)[0], share, main, confidence=confidence)
        for name in chosen
        if numeric_axis(frame, name)
    ]
    life_table = None
    if census or (census is None and len(runs) <= RUNS):
        life_table = lives(runs, also=tuple(asked))
        notes += [f"{name}: its censuses cannot be read ({why})." for name, why in life_table.unread.items()]
    elif census is None:
        notes.append(f"Survival is left out: {len(runs):,} runs' censuses are read only if asked for.")
    curves, tests = [], []
    if life_table is not None and len(life_table.counts):
        for name in few:
            for setting, rows in settings(frame, by):
                labels = {"factor": name, **dict(zip(by, setting, strict=True))}
                part = life_table.of(rows)
                if part.counts.empty or part.outcomes[name].nunique(dropna=False) < 2:
                    continue
                last = survival(part, name, confidence=confidence).groupby("setting", sort=False).tail(1)
                curves.append(last.assign(**labels))
                tested = logrank(part, name, baseline=base if name == factor else None, correction=of_rest)
                tests.append(tested.assign(**labels))
    if frame["seed"].nunique() == 1:
        notes.append("All runs have the same seed: no interval and no test exists.")
    crossed, curve, test = (
        pd.concat(some, ignore_index=True) if some else None for some in (crossings, curves, tests)
    )
    spoken = sentences(frame, effects=found, ranking=ranked, critical=crossed, outcome=main, share=share)
    notes = [note for note in notes if note]
    tables = (frame, found, ranked, crossed, curve, test)
    return Comparison(*tables, life_table, spoken, notes, tuple(by), correction, confidence)
