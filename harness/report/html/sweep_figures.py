"""The figures of a sweep's report: important factors, critical values, survival."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from harness import compare
from harness.compare.comparison import Comparison
from harness.compare.dose_curves import numeric_axis
from harness.compare.frames import codes, word
from harness.formats import p_is, p_value, points
from harness.report import plots
from harness.report.comparison import LEVELS, strongest_other
from harness.report.html.page import Block, Section, Words
from harness.report.html.parts import beside, drawn, frame_table, or_dash
from harness.report.plots.settings import key

PLANES = 4  # largest number of phase diagrams
OUTCOMES = ("dead", "born_dead", "died", "revived", "accuracy")


def factors(found: Comparison, ranked: list[str]) -> list[Section]:
    """Which factors matter, and what each factor changes."""
    if not ranked:
        return [Section("What matters", [Words("Nothing but the seed varies: there is nothing to compare.")])]
    ranking = found.ranking
    matters = [] if ranking is None else drawn(lambda: plots.ranking(ranking))
    return [Section("What matters", matters), Section("What each factor changes", _changes(found, ranked))]


def _changes(found: Comparison, ranked: list[str]) -> list[Block]:
    """A forest plot for each of the strongest factors, and a table of all effects."""
    if found.effects is None:
        return [Words("No factor has few enough values to compare each with a baseline.", "note")]
    measured = found.effects[found.effects["outcome"].isin(OUTCOMES)]
    shown = [name for name in ranked if name in set(measured["factor"])]
    shown = [name for name in shown if len(codes(found.outcomes[name])[1]) <= 2 * LEVELS][:4]

    def forest(name: str) -> Callable[[], Figure]:
        part = measured[measured["factor"] == name]
        some = part["difference"].notna().groupby(part["outcome"]).transform("any")
        return lambda: plots.effects(part[some], factor=name)

    numbers = measured.assign(factor=measured["factor"].map(key))
    numbers = numbers.assign(**{name: numbers[name].map(word) for name in ("level", "baseline")})
    columns = ["factor", "level", "baseline", "outcome", "pairs", "diverged", "failed"]
    columns += ["mean", "baseline_mean", "difference", "low", "high", "p", "p_adjusted"]
    formats: dict[str, Callable[[Any], str]] = dict.fromkeys(("difference", "low", "high"), points)
    formats |= {"mean": or_dash, "baseline_mean": or_dash, "p": p_value, "p_adjusted": p_value}
    table = frame_table(numbers[columns], formats=formats, fold=f"All {len(numbers)} effects, in numbers")
    return [*drawn(*(forest(name) for name in shown)), table]


def phases(frame: pd.DataFrame, ranked: list[str]) -> list[Block]:
    """Phase diagrams of the two strongest numeric factors (else any two), per level of the next factor."""
    numbers = [name for name in ranked if numeric_axis(frame, name)]
    plane = numbers[:2] if len(numbers) > 1 else ranked[:2]
    if len(plane) < 2:
        return []
    x, y = plane
    rest = [name for name in ranked if name not in plane and len(codes(frame[name])[1]) <= PLANES]
    if not rest:
        return drawn(lambda: plots.phase(compare.phase(frame, x, y)))
    place, levels = codes(frame[rest[0]])

    def plane_of(k: int) -> Callable[[], Figure]:
        title = f"{key(rest[0])}={word(levels[k])}"
        return lambda: plots.phase(compare.phase(frame[place == k], x, y), title=title)

    return beside(*(plane_of(k) for k in range(len(levels))))


def doses(frame: pd.DataFrame, ranked: list[str]) -> list[Block]:
    """Dose–response curves along the strongest numeric factors, by the strongest other factor."""
    blocks: list[Block] = []
    for axis in [name for name in ranked if numeric_axis(frame, name)][:3]:
        by = strongest_other(frame, ranked, axis)
        table, critical = compare.dose_response(frame, axis, by), compare.critical(frame, axis, by)
        blocks += drawn(lambda table=table, critical=critical: plots.dose_response(table, critical))
        notes = critical[critical["note"].astype(str) != ""]
        blocks += [Words(f"{row.setting}: {row.note}.", "note") for row in notes.itertuples()]
    return blocks


def survival(lives: compare.Lives | None, ranked: list[str]) -> list[Block]:
    """Survival and dead share over the steps by the two strongest factors, with the log-rank test."""
    if lives is None:
        return [Words("Left out: censuses of so many runs are not read here.", "note")]
    if lives.counts.empty:
        return [Words("No run has a census.", "note")]
    blocks: list[Block] = []
    few = [name for name in ranked if len(codes(lives.outcomes[name])[1]) <= LEVELS][:2]
    for by in [(name,) for name in few] or [()]:
        curves, shares = compare.survival(lives, by), compare.dead_over_time(lives, by)
        blocks += drawn(
            lambda curves=curves: plots.survival(curves), lambda shares=shares: plots.dead_over_time(shares)
        )
        if by:
            row = compare.logrank(lives, by[0]).iloc[0]  # the overall test, or that of the only pair
            if pd.notna(row["p"]):
                note = f" ({row['note']})" if row["note"] else ""
                text = f"Log-rank test by {key(by[0])}, clustered by seed: {p_is(row['p'])}{note}."
                blocks.append(Words(text, "note"))
    return blocks
