"""Bisection for one seed: which value to try next, and what the results say. Needs no torch and no files."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

FINE = 1e-6  # values are rounded to this fraction of a gap, to be short enough to read and type
SLACK = 1 + 1e-4  # tolerance for the effect of that rounding on a width


@dataclass(frozen=True)
class Range:
    """Range and resolution of a search for an edge.

    Args:
        low, high: ends of the range; both are tried.
        resolution: neighbouring values this close are not divided further; a ratio on a logarithmic scale, a
            difference on a linear one.
        log: whether the scale is logarithmic.
        whole: whether the axis takes integers only.

    Raises:
        ValueError: the ends are not finite or in the wrong order, a logarithmic range is not positive, or the
            resolution is too small.
    """

    low: float
    high: float
    resolution: float
    log: bool = True
    whole: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(
                f"between: expected two finite numbers, the smaller first, but got {self.low:g} {self.high:g}"
            )
        if self.log and self.low <= 0:
            raise ValueError(f"scale: log needs numbers above 0, but the range begins at {self.low:g}")
        least = 1 if self.log else 0
        if not (math.isfinite(self.resolution) and self.resolution > least):
            words = "a ratio above 1 on a log scale" if self.log else "a difference above 0 on a linear scale"
            raise ValueError(f"resolution: expected {words}, but got {self.resolution:g}")

    @cached_property
    def step(self) -> float:
        """The resolution as a distance on the scale."""
        return math.log(self.resolution) if self.log else self.resolution

    @property
    def halvings(self) -> int:
        """Largest number of values between the ends that one bisection tries.

        >>> Range(0.01, 10, 1.1).halvings
        7
        """
        return max(0, math.ceil(math.log2(gap(self.low, self.high, log=self.log) / self.step) - 1e-9))

    @property
    def grid(self) -> int:
        """Number of values of a grid with the same resolution.

        >>> Range(0.01, 10, 1.1).grid
        74
        """
        points = math.ceil(gap(self.low, self.high, log=self.log) / self.step - 1e-9) + 1
        return min(points, math.floor(self.high) - math.ceil(self.low) + 1) if self.whole else points


@dataclass(frozen=True)
class Point:
    """Result of a run at one value of the axis.

    Attributes:
        share: dead share, NaN if nothing was observed.
        diverged: whether the loss became non-finite; the share is then that of the last valid census.
    """

    share: float
    diverged: bool = False

    def lost(self, threshold: float) -> bool:
        """Whether the run is beyond the edge; a diverged run always is, since it cannot be trained."""
        return self.diverged or self.share >= threshold


@dataclass(frozen=True)
class SeedEdge:
    """The edge that the tried values of one seed show.

    Attributes:
        state: `dead` (an edge beyond which the dead share is at or above the threshold), `diverged` (an edge
            beyond which training diverges with a smaller dead share), `below` or `above` (no crossing: all
            values are on that side), `unobserved` (a run has no dead share).
        tried: number of values tried.
        rising: whether the edge is crossed as the value grows; None without an edge.
        value: the crossing, interpolated between the two neighbours; their midpoint at a divergence.
        last_below, first_above: the neighbours: the values closest to the edge on either side.
        share_below, share_above: their dead shares.
        monotone: whether every tried value beyond the edge is at or above the threshold, or diverged.
    """

    state: str
    tried: int
    rising: bool | None = None
    value: float = math.nan
    last_below: float = math.nan
    first_above: float = math.nan
    share_below: float = math.nan
    share_above: float = math.nan
    monotone: bool = True

    @property
    def found(self) -> bool:
        return self.state in ("dead", "diverged")


def bisect(
    where: Range, threshold: float, checks: int = 0
) -> Generator[tuple[float, ...], Sequence[Point], SeedEdge]:
    """Request values until the edge is known to the resolution.

    Both ends are tried first; they show which one is alive. If there are several crossings, the result is the
    one closest to the living end among the tried values.

    Args:
        where: the range.
        threshold: threshold of the dead share, above 0.
        checks: number of extra values that look for crossings missed by the bisection: alternately the middle
            of the widest gap on the living side, and of the gap beyond the edge that is closest to it.

    Yields:
        Values to try; send back their points, in the same order.

    Returns:
        The edge.

    Example:
        >>> search, answer = bisect(Range(0.01, 10, 2), 0.5), None
        >>> try:
        ...     while True:
        ...         values = search.send(answer)
        ...         answer = [Point(0.9 if value > 1 else 0.1) for value in values]
        ... except StopIteration as end:
        ...     print(end.value.state, end.value.last_below, end.value.first_above, end.value.tried)
        dead 0.749895 1.1547828 6
    """
    ends = (where.low, where.high)
    tried = dict(zip(ends, (yield ends), strict=True))
    looked = 0
    while True:
        if any(_unknown(point) for point in tried.values()):
            return conclude(tried, threshold, log=where.log)
        order, bracket = _order(tried, threshold), _bracket(tried, threshold)
        value = _between(where, *bracket) if bracket else None
        while value is None and looked < checks:
            value = _look(where, order, bracket, beyond=looked % 2 == 1)
            looked += 1
        if value is None:
            return conclude(tried, threshold, log=where.log)
        (tried[value],) = yield (value,)


def conclude(tried: Mapping[float, Point], threshold: float, *, log: bool) -> SeedEdge:
    """Find the edge in any set of tried values, requested by `bisect` or not.

    Example:
        >>> edge = conclude({1: Point(0.1), 2: Point(0.3), 4: Point(0.7)}, 0.5, log=False)
        >>> edge.state, edge.rising, edge.last_below, edge.first_above, round(edge.value, 6)
        ('dead', True, 2, 4, 3.0)
    """
    if any(_unknown(point) for point in tried.values()):
        return SeedEdge("unobserved", len(tried))
    bracket = _bracket(tried, threshold)
    if bracket is None:
        lost = all(point.lost(threshold) for point in tried.values())
        return SeedEdge("above" if lost else "below", len(tried))
    inner, outer = bracket
    below, above = tried[inner].share, tried[outer].share
    dead = above >= threshold
    part = (threshold - below) / (above - below) if dead else 0.5
    order = _order(tried, threshold)
    beyond = order[order.index(outer) :]
    return SeedEdge(
        "dead" if dead else "diverged",
        len(tried),
        rising=inner < outer,
        value=inner * (outer / inner) ** part if log else inner + part * (outer - inner),
        last_below=inner,
        first_above=outer,
        share_below=below,
        share_above=above,
        monotone=all(tried[value].lost(threshold) for value in beyond),
    )


def gap(low: float, high: float, *, log: bool) -> float:
    """Distance between two values on the scale."""
    return math.log(high / low) if log else high - low


def _unknown(point: Point) -> bool:
    return math.isnan(point.share) and not point.diverged


def _order(tried: Mapping[float, Point], threshold: float) -> list[float]:
    """Return the values sorted from the living end on; empty if neither end is alive."""
    values = sorted(tried)
    if not tried[values[0]].lost(threshold):
        return values
    return values[::-1] if not tried[values[-1]].lost(threshold) else []


def _bracket(tried: Mapping[float, Point], threshold: float) -> tuple[float, float] | None:
    """Return the first lost value from the living end on, preceded by the living value before it."""
    order = _order(tried, threshold)
    for inner, outer in pairwise(order):
        if tried[outer].lost(threshold):
            return inner, outer
    return None


def _between(where: Range, one: float, other: float) -> float | None:
    """Return a value in the middle; None if the two are close enough."""
    low, high = sorted((one, other))
    if gap(low, high, log=where.log) <= where.step * SLACK:
        return None
    return _middle(where, low, high)


def _middle(where: Range, low: float, high: float) -> float | None:
    middle = math.sqrt(low) * math.sqrt(high) if where.log else low + (high - low) / 2
    if where.whole:
        middle = round(middle)
        if where.log and middle == low:  # 1 and 3: their middle is 2, not √3
            middle += 1
    else:
        unit = FINE * gap(low, high, log=where.log) * (middle if where.log else 1)
        middle = round(middle, -math.floor(math.log10(unit)))
    return middle if low < middle < high else None


def _look(
    where: Range, order: Sequence[float], bracket: tuple[float, float] | None, *, beyond: bool
) -> float | None:
    """Return an extra value to try; None if all gaps are within the resolution, or neither end is alive."""
    if bracket and beyond:
        pairs = list(pairwise(order[order.index(bracket[1]) :]))
    else:
        side = order[: order.index(bracket[1])] if bracket else order
        pairs = sorted(pairwise(side), key=lambda pair: -abs(gap(*pair, log=where.log)))
    middles = (_between(where, *pair) for pair in pairs)
    return next((value for value in middles if value is not None), None)
