"""Summarise the edges of an arm's seeds as a median with an interval. Needs no torch and no files.

The seed is the unit of analysis. Seeds without a crossing count too: their edge lies beyond an end of the
range, which is all that order statistics need.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.compare.survivors import why_no_edge
from harness.sweeps.threshold_search.bisect import SeedEdge

CONFIDENCE = 0.95


@dataclass(frozen=True)
class ArmEdge:
    """The edge of one arm.

    Attributes:
        arm: dotted key → value of the keys that distinguish it from the others.
        seeds: seed → its edge.
        median: median of the seeds' edges; ±inf: beyond the range; NaN: no statement.
        low, high: interval of the median. It is computed from the neighbours of each seed's edge, so it
            includes the resolution; NaN with one seed.
        coverage: exact probability that such an interval contains the median.
        rising: whether the edge is crossed as the value grows; None: no edge, or the seeds disagree.
    """

    arm: dict[str, object]
    seeds: Mapping[int, SeedEdge]
    median: float
    low: float
    high: float
    coverage: float
    rising: bool | None

    def count(self, state: str) -> int:
        return sum(edge.state == state for edge in self.seeds.values())

    @property
    def missing(self) -> str:
        """What is missing to report the median; "" if nothing."""
        observed = sum(edge.state != "unobserved" for edge in self.seeds.values())
        tried = min((edge.tried for edge in self.seeds.values() if edge.found), default=0)
        return "" if math.isnan(self.median) else why_no_edge(observed, len(self.seeds), tried)

    @property
    def tried(self) -> int:
        return sum(edge.tried for edge in self.seeds.values())


def over_seeds(arm: dict[str, object], seeds: Mapping[int, SeedEdge], *, log: bool) -> ArmEdge:
    """Compute the median and interval of an arm.

    Example:
        >>> edge = SeedEdge("dead", 9, True, 1.5, 1.4, 1.6, 0.1, 0.9)
        >>> found = over_seeds({}, dict.fromkeys(range(8), edge), log=True)
        >>> round(found.median, 6), found.low, found.high, round(found.coverage, 4)
        (1.5, 1.4, 1.6, 0.9922)
    """
    observed = [edge for edge in seeds.values() if edge.state != "unobserved"]
    directions = {edge.rising for edge in observed if edge.found}
    if len(directions) != 1:
        return ArmEdge(arm, seeds, math.nan, math.nan, math.nan, math.nan, None)
    (rising,) = directions
    beyond = math.inf if rising else -math.inf
    values, lows, highs = [], [], []
    for edge in observed:
        outside = beyond if edge.state == "below" else -beyond
        values.append(edge.value if edge.found else outside)
        lows.append(min(edge.last_below, edge.first_above) if edge.found else outside)
        highs.append(max(edge.last_below, edge.first_above) if edge.found else outside)
    rank, coverage = interval_rank(len(values))
    low, high = (sorted(lows)[rank - 1], sorted(highs)[-rank]) if rank else (math.nan, math.nan)
    return ArmEdge(arm, seeds, _median(values, log=log), low, high, coverage, rising)


def interval_rank(n: int, confidence: float = CONFIDENCE) -> tuple[int, float]:
    """Exact, distribution-free interval of a median from order statistics.

    Args:
        n: number of values.
        confidence: requested probability.

    Returns:
        Rank k and the probability that the median lies between the k-th smallest and the k-th largest value:
        the largest k that reaches the confidence, 1 if none does, 0 for fewer than two values.

    Example:
        >>> [interval_rank(n) for n in (1, 4, 8, 20)]
        [(0, nan), (1, 0.875), (1, 0.9921875), (6, 0.958610534667...)]
    """
    if n < 2:
        return 0, math.nan

    def coverage(rank: int) -> float:
        return 1 - 2 * sum(math.comb(n, k) for k in range(rank)) / 2**n

    best = max((k for k in range(1, n // 2 + 1) if coverage(k) >= confidence), default=1)
    return best, coverage(best)


def notes(found: ArmEdge, threshold: float, low: float, high: float) -> list[str]:
    """Return notes on what the median alone would hide.

    Args:
        found: an arm.
        threshold: threshold of the dead share.
        low: lower end of the range, or the smallest stored value.
        high: upper end of the range, or the largest stored value.
    """
    n, states = len(found.seeds), Counter(edge.state for edge in found.seeds.values())
    crooked = sum(not edge.monotone for edge in found.seeds.values())
    share, ends = f"{100 * threshold:g} %", f"{low:g} and {high:g}"
    lines = []
    if found.missing:
        each = ", ".join(f"{edge.value:.4g}" for _, edge in sorted(found.seeds.items()) if edge.found)
        lines.append(f"no edge is given: {found.missing} (found per seed: {each})")
    if states["diverged"]:
        of = _of(states["diverged"], n)
        lines.append(f"an edge of divergence in {of}: training diverges before {share} are dead")
    if states["below"]:
        lines.append(
            f"no crossing in {_of(states['below'], n)}: below {share} wherever tried, {ends} included"
        )
    if states["above"]:
        lines.append(
            f"no crossing in {_of(states['above'], n)}: already above {share} (or diverged) at {ends}"
        )
    if crooked:
        lines.append(f"not monotone in {_of(crooked, n)}: below {share} again beyond the edge")
    if states["unobserved"]:
        lines.append(f"no result in {_of(states['unobserved'], n)}: a run failed or observed nothing")
    if found.rising is not None and math.isnan(found.median):
        lines.append("no median: it lies between seeds with a crossing and seeds without one")
    if found.rising is None and any(edge.found for edge in found.seeds.values()):
        lines.append("no median: the dead share rises along the axis with some seeds and falls with others")
    return lines


def _of(count: int, n: int) -> str:
    return f"{count} of {n} seeds" if n > 1 else "the one seed"


def _median(values: Sequence[float], *, log: bool) -> float:
    ordered, half = sorted(values), len(values) // 2
    if len(values) % 2:
        return ordered[half]
    low, high = ordered[half - 1], ordered[half]
    if math.isinf(low) or math.isinf(high):
        return low if low == high else math.nan  # a number and "beyond the range" have no midpoint
    return math.sqrt(low * high) if log else (low + high) / 2
