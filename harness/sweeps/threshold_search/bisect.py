"""Bisection of one seed: which value to try next, and what the tried ones say. No torch, no files."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

FINE = 1e-6  # of a gap: values are rounded to this, so that they can be read and typed again
SLACK = 1 + 1e-4  # what that rounding may do to a width


@dataclass(frozen=True)
class Range:
    """Where an edge is looked for, and how finely.

    Args:
        low, high: ends of the axis, both tried.
        resolution: neighbouring values so near are not divided further: their ratio on a logarithmic
            scale, their difference on a linear one.
        log: whether the scale is logarithmic.
        whole: whether the axis takes whole numbers only.

    Raises:
        ValueError: ends in the wrong order or not finite, a logarithm of what is not positive, a
            resolution that divides nothing.
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
        """Values between the ends that one bisection tries at most.

        >>> Range(0.01, 10, 1.1).halvings
        7
        """
        return max(0, math.ceil(math.log2(gap(self.low, self.high, log=self.log) / self.step) - 1e-9))

    @property
    def grid(self) -> int:
        """Values of a grid of the same resolution.

        >>> Range(0.01, 10, 1.1).grid
        74
        """
        points = math.ceil(gap(self.low, self.high, log=self.log) / self.step - 1e-9) + 1
        return min(points, math.floor(self.high) - math.ceil(self.low) + 1) if self.whole else points


@dataclass(frozen=True)
class Point:
    """What a run at one value of the axis ended with.

    Attributes:
        share: its dead share, NaN if nothing was observed.
        diverged: whether its loss stopped being finite; the share is then that of its last good census.
    """

    share: float
    diverged: bool = False

    def lost(self, threshold: float) -> bool:
        """A diverged run is lost whatever its dead share: further out nothing can be trained either."""
        return self.diverged or self.share >= threshold


@dataclass(frozen=True)
class SeedEdge:
    """What the values that were tried with one seed say.

    Attributes:
        state: `dead` (an edge: beyond it the dead share is at or above the threshold), `diverged` (an edge
            beyond which training diverges with fewer dead units than that), `below` or `above` (no
            crossing: at every value), `unobserved` (a run without a dead share).
        rising: whether the edge is passed when the value grows; None without an edge.
        value: the crossing, interpolated between the two neighbours; their middle at a divergence.
        last_below, first_above: the neighbours: nearest to the edge on either side.
        share_below, share_above: their dead shares.
        monotone: whether no value beyond the edge was below the threshold again.
        tried: how many values were.
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
    """Ask for values until the edge is known within the resolution.

    Which end is the living one shows when both have been tried. Of several crossings the one nearest to
    it among the tried values is found.

    Args:
        where: the range.
        threshold: of the dead share, above 0.
        checks: further values that look for what a bisection steps over: in turn in the middle of the widest
            gap on the living side, and of the gap beyond the edge that is nearest to it.

    Yields:
        Values; what came of them is to be sent back, in their order.

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
    """What any set of values says, asked for by `bisect` or not.

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
    """The distance of two values on the scale."""
    return math.log(high / low) if log else high - low


def _unknown(point: Point) -> bool:
    return math.isnan(point.share) and not point.diverged


def _order(tried: Mapping[float, Point], threshold: float) -> list[float]:
    """The values from the living end on; empty if neither end is alive."""
    values = sorted(tried)
    if not tried[values[0]].lost(threshold):
        return values
    return values[::-1] if not tried[values[-1]].lost(threshold) else []


def _bracket(tried: Mapping[float, Point], threshold: float) -> tuple[float, float] | None:
    """The first lost value from the living end on, and the living one before it."""
    order = _order(tried, threshold)
    for inner, outer in pairwise(order):
        if tried[outer].lost(threshold):
            return inner, outer
    return None


def _between(where: Range, one: float, other: float) -> float | None:
    """A value in the middle, None if these two are near enough."""
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
    """Where else to look; None if the values lie as densely as the resolution asks, or none is alive."""
    if bracket and beyond:
        pairs = list(pairwise(order[order.index(bracket[1]) :]))
    else:
        side = order[: order.index(bracket[1])] if bracket else order
        pairs = sorted(pairwise(side), key=lambda pair: -abs(gap(*pair, log=where.log)))
    middles = (_between(where, *pair) for pair in pairs)
    return next((value for value in middles if value is not None), None)
