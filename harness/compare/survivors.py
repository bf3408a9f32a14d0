"""Whether enough runs survive for a headline, and what is missing where they do not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LEAST_PAIRS = 3  # that a headline rests on
LEAST_SHARE = 0.5  # of the runs that have a result


def enough(kept: int, runs: int) -> bool:
    """Whether a mean over the runs that are left speaks for all of them."""
    return runs > 0 and kept >= LEAST_SHARE * runs


def why_no_headline(row: Mapping[Any, Any], level: str, baseline: str) -> str:
    """Why a difference of two levels is no headline; "" if it is one.

    Args:
        row: of a table of effects.
        level: in words.
        baseline: likewise.

    Example:
        >>> here = {"runs": 8, "diverged": 6, "failed": 0, "unfinished": 0}
        >>> there = {f"baseline_{name}": 0 for name in here} | {"baseline_runs": 8}
        >>> row = {"outcome": "dead", "pairs": 2, **here, **there}
        >>> why_no_headline(row, "10", "0.1")
        '2 of 8 runs at 10 have a result (6 diverged); 2 pairs of seeds are left, 3 are needed'
    """
    reasons, least = [], int(row["runs"])
    for side, name in (("", level), ("baseline_", baseline)):
        runs = int(row[f"{side}runs"])
        gone = {why: int(row[f"{side}{why}"]) for why in ("diverged", "failed", "unfinished")}
        if row["outcome"] == "diverged":  # a result, then
            del gone["diverged"]
        kept = runs - sum(gone.values())
        least = min(least, kept)
        if not enough(kept, runs):
            why = ", ".join(f"{count:,} {word}" for word, count in gone.items() if count)
            reasons.append(f"{kept:,} of {runs:,} runs at {name} have a result ({why})")
    pairs = int(row["pairs"])
    if (pairs or least) < LEAST_PAIRS:
        what = "pairs of seeds" if pairs else "runs of a level"
        reasons.append(f"{pairs or least:,} {what} are left, {LEAST_PAIRS} are needed")
    return "; ".join(reasons)
