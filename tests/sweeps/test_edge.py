"""The search for an edge on made-up response curves: no training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.sweeps.threshold_search.arms import arms_of, in_words
from harness.sweeps.threshold_search.bisect import SLACK, Point, Range, SeedEdge, bisect, conclude, gap
from harness.sweeps.threshold_search.seeds import interval_rank, notes, over_seeds

Curve = Callable[[float], Point]


def find(
    where: Range, curve: Curve, threshold: float = 0.5, checks: int = 0
) -> tuple[SeedEdge, dict[float, Point]]:
    search, tried = bisect(where, threshold, checks), {}
    values = next(search)
    while True:
        assert not tried.keys() & set(values), "nothing is asked twice"
        tried |= {value: curve(value) for value in values}
        try:
            values = search.send([tried[value] for value in values])
        except StopIteration as end:
            edge = end.value
            break
    assert edge.tried == len(tried)
    return edge, tried


def step(edge: float, *, rising: bool = True, diverged: bool = False) -> Curve:
    def curve(value: float) -> Point:
        beyond = value > edge if rising else value < edge
        return Point(0.0 if diverged else 0.9, diverged) if beyond else Point(0.1)

    return curve


@st.composite
def ranges(draw: st.DrawFn) -> Range:
    if draw(st.booleans()):
        low = draw(st.floats(1e-9, 1e3))
        return Range(low, low * draw(st.floats(1.01, 1e12)), draw(st.floats(1.001, 100)))
    low, width = draw(st.floats(-1e4, 1e4)), draw(st.floats(0.1, 1e4))
    return Range(low, low + width, width * draw(st.floats(1e-4, 2)), log=False)


@given(ranges(), st.floats(0, 1), st.booleans(), st.booleans())
def test_an_edge_is_found_within_the_resolution_by_few_values(
    where: Range, part: float, rising: bool, diverged: bool
) -> None:
    true = where.low * (where.high / where.low) ** part if where.log else where.low + part * gap_of(where)
    if not where.low < true < where.high:
        return
    edge, tried = find(where, step(true, rising=rising, diverged=diverged))
    assert edge.state == ("diverged" if diverged else "dead")
    assert edge.rising is rising
    low, high = sorted((edge.last_below, edge.first_above))
    assert low <= true <= high
    assert low <= edge.value <= high
    assert gap(low, high, log=where.log) <= where.step * SLACK
    assert edge.monotone
    assert len(tried) <= max(0, math.ceil(math.log2(gap_of(where) / where.step))) + 2
    assert len(tried) <= where.halvings + 2


def gap_of(where: Range) -> float:
    return gap(where.low, where.high, log=where.log)


@given(st.integers(1, 50), st.integers(1, 200), st.data(), st.booleans())
def test_whole_numbers_are_tried_where_only_they_count(
    low: int, width: int, data: st.DataObject, log: bool
) -> None:
    true = data.draw(st.integers(low, low + width - 1))
    edge, tried = find(Range(low, low + width, 1.000001 if log else 0.01, log=log, whole=True), step(true))
    assert all(value == int(value) for value in tried)
    assert (edge.last_below, edge.first_above) == (true, true + 1)


@given(ranges(), st.integers(0, 4))
def test_a_curve_without_a_crossing_has_a_state_of_its_own(where: Range, checks: int) -> None:
    below, tried = find(where, lambda value: Point(0.2), checks=checks)
    assert (below.state, below.found, below.rising) == ("below", False, None)
    assert 2 <= len(tried) <= 2 + checks
    above, tried = find(where, lambda value: Point(0.5), checks=checks)
    assert (above.state, len(tried)) == ("above", 2)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=40), st.integers(0, 5))
def test_any_curve_comes_to_an_end_with_neighbours_on_either_side(shares: list[float], checks: int) -> None:
    where = Range(0.001, 1000, 1.05)

    def curve(value: float) -> Point:
        return Point(shares[int(value * 7919) % len(shares)])

    edge, tried = find(where, curve, checks=checks)
    assert len(tried) <= 2 + (checks + 1) * (where.halvings + 1)
    if edge.found:
        assert tried[edge.last_below].share < 0.5 <= tried[edge.first_above].share
        inside = [v for v in tried if min(edge.last_below, edge.first_above) < v]
        assert not [v for v in inside if v < max(edge.last_below, edge.first_above)], "they are neighbours"


def test_a_hole_on_the_living_side_is_seen_by_a_check_and_said() -> None:
    def curve(value: float) -> Point:
        return Point(0.9 if value > 5 or 0.04 < value < 0.08 else 0.1)

    where = Range(0.01, 10, 1.1)
    blind, _ = find(where, curve)
    assert blind.last_below < 5 < blind.first_above
    assert blind.monotone, "nothing that was tried says otherwise"
    seen, _ = find(where, curve, checks=1)
    assert seen.last_below < 0.04 < seen.first_above < 0.08
    assert not seen.monotone
    text = notes(over_seeds({}, {0: seen}, log=True), 0.5, 0.01, 10)
    assert text == [
        f"no edge is given: 1 seed has a result, 3 are needed (found per seed: {seen.value:.4g})",
        "not monotone in the one seed: below 50 % again beyond the edge",
    ]


@pytest.mark.parametrize("rising", [True, False])
def test_life_beyond_the_edge_is_looked_for_near_it(rising: bool) -> None:
    where, curve = Range(0.01, 10, 1.1), step(1, rising=rising)
    plain, before = find(where, curve, checks=1)
    again, after = find(where, curve, checks=2)
    assert again.monotone
    (looked_at,) = after.keys() - before.keys()
    assert (looked_at > plain.first_above) is rising
    assert abs(math.log(looked_at / plain.first_above)) < 1
    alive, _ = find(where, lambda v: Point(0.1) if v == looked_at else curve(v), checks=2)
    assert not alive.monotone
    assert (alive.last_below, alive.first_above) == (plain.last_below, plain.first_above)


def test_a_hump_between_two_living_ends_is_found_by_a_check() -> None:
    def curve(value: float) -> Point:
        return Point(0.9 if 2 < value < 6 else 0.0)

    where = Range(0, 8, 0.1, log=False)
    assert find(where, curve)[0].state == "below"
    edge, _ = find(where, curve, checks=1)
    assert edge.state == "dead"
    assert edge.last_below <= 2 <= edge.first_above
    assert not edge.monotone


def test_a_diverged_run_counts_by_its_own_dead_share_first() -> None:
    dead = conclude({1: Point(0.1), 2: Point(0.8, diverged=True)}, 0.5, log=True)
    assert dead.state == "dead"
    early = conclude({1: Point(0.1), 2: Point(0.2, diverged=True)}, 0.5, log=True)
    assert early.state == "diverged"
    assert early.value == pytest.approx(math.sqrt(2))
    assert conclude({1: Point(0.1), 2: Point(nan, diverged=True)}, 0.5, log=True).state == "diverged"
    assert conclude({1: Point(0.1), 2: Point(nan)}, 0.5, log=True).state == "unobserved"


def test_a_run_without_a_share_ends_the_search_of_its_seed() -> None:
    edge, tried = find(Range(1, 100, 1.1), lambda value: Point(nan if 2 < value < 50 else value / 100))
    assert edge.state == "unobserved"
    assert len(tried) == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((2, 1, 1.1), "the smaller first"),
        ((1, inf, 1.1), "finite"),
        ((1, nan, 1.1), "finite"),
        ((0, 1, 1.1), "above 0"),
        ((1, 2, 1), "ratio above 1"),
        ((1, 2, nan), "ratio above 1"),
        ((-1, 2, 0, False), "difference above 0"),
    ],
)
def test_a_range_that_makes_no_sense_is_refused(arguments: tuple[float, ...], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Range(*arguments)  # type: ignore[arg-type]


def dead(value: float, *, rising: bool = True) -> SeedEdge:
    inner, outer = (value * 0.95, value * 1.05) if rising else (value * 1.05, value * 0.95)
    return SeedEdge("dead", 9, rising, value, inner, outer, 0.1, 0.9)


def test_seeds_without_a_crossing_stay_in_the_median() -> None:
    below, above = SeedEdge("below", 3), SeedEdge("above", 2)
    found = over_seeds({}, dict(enumerate([dead(1), dead(2), dead(4), below, below])), log=True)
    assert found.median == 4
    assert (found.low, found.high) == (0.95, inf)
    assert over_seeds({}, dict(enumerate([dead(1), below, below])), log=True).median == inf
    assert over_seeds({}, dict(enumerate([dead(1), above, above])), log=True).median == -inf
    falling = [dead(-1, rising=False), below, below]
    assert over_seeds({}, dict(enumerate(falling)), log=False).median == -inf
    assert math.isnan(over_seeds({}, dict(enumerate([below, below])), log=True).median)
    mixed = over_seeds({}, {0: dead(1), 1: dead(2, rising=False)}, log=True)
    assert math.isnan(mixed.median)
    assert any("no median" in line for line in notes(mixed, 0.5, 0.1, 10))
    spread = over_seeds({}, dict(enumerate([dead(1), below, below, above])), log=True)
    assert (spread.low, spread.high) == (-inf, inf)
    assert math.isnan(spread.median), "between 1 and what lies beyond the range"
    assert any("no median" in line for line in notes(spread, 0.5, 0.1, 10))


def test_a_median_of_few_seeds_or_values_is_not_told() -> None:
    def missing(*seeds: SeedEdge) -> str:
        return over_seeds({}, dict(enumerate(seeds)), log=True).missing

    lost, coarse = SeedEdge("unobserved", 3), SeedEdge("dead", 2, True, 1, 0.5, 2, 0.1, 0.9)
    assert missing(dead(1), dead(2), dead(4)) == ""
    assert missing(dead(1), dead(2)) == "2 seeds have a result, 3 are needed"
    assert missing(*[dead(1)] * 3, *[lost] * 4) == "3 of 7 seeds have a result"
    assert missing(*[coarse] * 4) == "2 values were tried, 3 are needed"
    assert missing(lost) == "", "there is no median to tell"


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=12))
def test_the_interval_holds_the_median_of_the_seeds(values: list[float]) -> None:
    found = over_seeds({}, dict(enumerate(map(dead, values))), log=True)
    if len(values) > 1:
        assert found.low <= found.median * (1 + 1e-9)
        assert found.median <= found.high * (1 + 1e-9)
    else:
        assert math.isnan(found.low)


@pytest.mark.parametrize("n", [2, 5, 8])
def test_the_coverage_is_exact(n: int) -> None:
    """Counted out: each value lies above or below the true median with probability 1/2."""
    rank, coverage = interval_rank(n)
    held = sum(rank <= sum(below) <= n - rank for below in itertools.product((0, 1), repeat=n))
    assert coverage == held / 2**n


def test_arms_are_named_by_choices_first_and_by_as_little_as_possible() -> None:
    base = {
        "model.width": 8,
        "model.name": "mlp",
        "optim.lr": 1,
        "seed": 0,
        "output": "a",
        "detect.rare": 0.1,
    }
    other = base | {"model.width": 16, "model.name": "cnn", "optim.lr": 2, "output": "b", "detect.rare": 0.2}
    assert [in_words(arm) for arm in arms_of([base, other], "optim.lr")] == ["model=mlp", "model=cnn"]
    clipped = base | {"train.clip_grad": 1.0}
    free = base | {"train.clip_grad": None}
    words = [in_words(arm) for arm in arms_of([clipped, free], "optim.lr")]
    assert words == ["train.clip_grad=1.0", "train.clip_grad=null"]
