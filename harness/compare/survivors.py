"""Whether enough runs survive to report on them, and what is missing if not.

One rule for everything reported in a sentence: differences, critical values and edges. Tables keep every
number; whatever fails the rule is left out of sentences and figures, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

LEAST_PAIRS = 3  # seeds, or pairs of them, on either side
LEAST_SHARE = 0.5  # share of the runs with a result
LEAST_VALUES = 3  # along a number: with two, any line through them has a crossing
GONE = ("diverged", "failed", "unfinished")
CONFOUNDED = "no pairs: other factors differ too"  # a note of a table of effects


def enough(kept: int, runs: int) -> bool:
    """Whether a mean over the remaining runs represents all of them."""
    return runs > 0 and kept >= LEAST_SHARE * runs


def few_left(name: str, kept: int, runs: int, gone: Mapping[str, int]) -> str:
    """State that fewer than half of some runs have a result; "" if at least half have one.

    Args:
        name: their level, in words.
        kept: runs with a result.
        runs: all runs.
        gone: why the others have none: word → how many.

    Example:
        >>> few_left("lr=1", 1, 9, {"diverged": 8, "failed": 0})
        '1 of 9 runs at lr=1 have a result (8 diverged)'
    """
    if enough(kept, runs):
        return ""
    why = ", ".join(f"{count:,} {word}" for word, count in gone.items() if count)
    return f"{kept:,} of {runs:,} runs at {name} have a result" + (f" ({why})" if why else "")


def why_no_headline(row: Mapping[Any, Any], level: str, baseline: str) -> str:
    """Why a difference between two levels is not reported; "" if it is.

    Args:
        row: a row of a table of effects.
        level: the level, in words.
        baseline: the baseline, in words.

    Example:
        >>> here = {"runs": 8, "diverged": 6, "failed": 0, "unfinished": 0}
        >>> there = {f"baseline_{name}": 0 for name in here} | {"baseline_runs": 8}
        >>> row = {"outcome": "dead", "pairs": 2, **here, **there}
        >>> why_no_headline(row, "10", "0.1")
        '2 of 8 runs at 10 have a result (6 diverged); 2 pairs of seeds are left, 3 are needed'
    """
    reasons, least, lost = [], int(row["runs"]), False
    for side, name in (("", level), ("baseline_", baseline)):
        runs = int(row[f"{side}runs"])
        gone = {why: int(row[f"{side}{why}"]) for why in GONE}
        if row["outcome"] == "diverged":  # which is a result in that case
            del gone["diverged"]
        kept = runs - sum(gone.values())
        least, lost = min(least, kept), lost or kept < runs
        reasons.append(few_left(name, kept, runs, gone))
    pairs = int(row["pairs"])
    if (pairs or least) < LEAST_PAIRS:
        left, (one, more) = pairs or least, ("pair", "pairs") if pairs else ("run", "runs")
        of = "of seeds" if pairs else "of a level"
        counted = f"{left:,} {one if left == 1 else more} {of}"
        be = "is" if left == 1 else "are"
        found = f"{counted} {be} left" if lost else f"there {be} {counted}"
        reasons.append(f"{found}, {LEAST_PAIRS} are needed")
    if str(row.get("note", "")).startswith(CONFOUNDED):
        reasons.append(f"other factors differ too between {level} and {baseline}")
    return joined(reasons)


def why_no_crossing(values: int, sides: Sequence[Mapping[str, Any]]) -> str:
    """Why a critical value is not reported; "" if it is.

    Args:
        values: number of values along the axis with an outcome.
        sides: the neighbours of the crossing: name (in words), seeds, kept, runs, and how many are gone by
            reason (diverged, failed, unfinished).

    Example:
        >>> side = {"name": "1", "seeds": 2, "kept": 2, "runs": 8, "diverged": 6}
        >>> why_no_crossing(4, [side])
        '2 of 8 runs at 1 have a result (6 diverged); 2 seeds at 1, 3 are needed'
    """
    reasons = []
    if values < LEAST_VALUES:
        reasons.append(f"{values:,} values with an outcome, {LEAST_VALUES} are needed")
    for side in sides:
        gone = {why: int(side.get(why, 0)) for why in GONE}
        reasons.append(few_left(side["name"], side["kept"], side["runs"], gone))
    few = [f"{seeds_of(side['seeds'])} at {side['name']}" for side in sides if side["seeds"] < LEAST_PAIRS]
    if few:
        reasons.append(f"{' and '.join(few)}, {LEAST_PAIRS} are needed")
    return joined(reasons)


def why_not_nowhere(sides: Sequence[Mapping[str, Any]]) -> str:
    """Why it cannot be said that a share is never crossed; "" if it can.

    Args:
        sides: all values along the axis, as in `why_no_crossing`.

    Example:
        >>> why_not_nowhere([{"name": "1", "kept": 1, "runs": 3}, {"name": "3", "kept": 0, "runs": 3}])
        'too few runs have a result at 1, 3 (1 of 6)'
    """
    thin = [side for side in sides if not enough(side["kept"], side["runs"])]
    if not thin:
        return ""
    kept, runs = (sum(side[key] for side in thin) for key in ("kept", "runs"))
    return f"too few runs have a result at {', '.join(side['name'] for side in thin)} ({kept:,} of {runs:,})"


def why_no_edge(observed: int, seeds: int, tried: int) -> str:
    """Why the median edge of an arm is not reported; "" if it is.

    Args:
        observed: seeds with a result, including results without a crossing.
        seeds: all seeds.
        tried: number of values tried with the seed that has the fewest.

    Example:
        >>> why_no_edge(2, 2, 9)
        '2 seeds have a result, 3 are needed'
    """
    reasons = []
    if tried < LEAST_VALUES:
        reasons.append(f"{tried:,} values were tried, {LEAST_VALUES} are needed")
    if not enough(observed, seeds):
        reasons.append(f"{observed:,} of {seeds_of(seeds)} have a result")
    if observed < LEAST_PAIRS:
        reasons.append(
            f"{seeds_of(observed)} {'has' if observed == 1 else 'have'} a result, {LEAST_PAIRS} are needed"
        )
    return joined(reasons)


def seeds_of(count: int) -> str:
    return f"{count:,} seed{'' if count == 1 else 's'}"


def joined(reasons: Sequence[str]) -> str:
    return "; ".join(reason for reason in reasons if reason)
