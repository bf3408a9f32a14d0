"""`classify` and `rate_upper` against one unit at a time."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom

import harness
from harness.detector.states import rate_upper
from harness.selftest.truth import STATES, state_of, upper_bound

ROW = st.integers(0, 3000).flatmap(
    lambda n: st.tuples(
        st.just(n),
        st.integers(0, n) | st.sampled_from([0, n, n // 100, min(n, n // 100 + 1)]),
        st.sampled_from([0, 0, 0, 0, 1]) if n else st.just(0),
        st.sampled_from([0.0, 1e-30, 0.5, float("nan"), float("inf")]),
    )
)
ROWS = st.lists(ROW, min_size=1, max_size=12)
QUICK = settings(max_examples=60, deadline=None)


def census(rows: list[tuple[int, int, int, float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["n", "active", "non_finite", "grad_rms"])


@QUICK
@given(ROWS, st.floats(0, 1), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_states_and_bounds(rows: list[tuple[int, int, int, float]], rare: float, confidence: float) -> None:
    units = census(rows)
    before = units.copy()
    found = harness.classify(units, harness.Thresholds(rare=rare, confidence=confidence))
    pd.testing.assert_frame_equal(units, before)
    assert list(found.state) == [state_of(*row, rare=rare) for row in rows]
    want = [upper_bound(active, n, confidence) for n, active, *_ in rows]
    np.testing.assert_allclose(found.rate_upper, want, rtol=1e-6, atol=1e-12)


@QUICK
@given(ROWS)
def test_defaults_and_second_thoughts(rows: list[tuple[int, int, int, float]]) -> None:
    """Other thresholds change the state afterwards, and back again."""
    units = harness.classify(census(rows))
    assert list(units.state) == [state_of(*row) for row in rows]
    again = harness.classify(harness.classify(units, harness.Thresholds(rare=0.5, confidence=0.6)))
    pd.testing.assert_frame_equal(again[units.columns], units)
    assert set(units.state) <= set(STATES)


@QUICK
@given(ROWS)
def test_without_gradients_nothing_is_starved(rows: list[tuple[int, int, int, float]]) -> None:
    units = harness.classify(census(rows).drop(columns="grad_rms"))
    assert list(units.state) == [state_of(n, a, bad, math.nan) for n, a, bad, _ in rows]


@QUICK
@given(st.integers(1, 10**6), st.floats(0, 1), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_bound_is_clopper_pearson(n: int, share: float, confidence: float) -> None:
    active = int(n * share)
    (upper,) = rate_upper(np.array([active]), np.array([n]), confidence)
    want = 1.0 if active == n else beta.ppf(confidence, active + 1, n - active)
    assert upper == pytest.approx(want, rel=1e-6)
    if active < n:  # its meaning: at this rate so few would be seen with probability 1 - confidence
        assert binom.cdf(active, n, upper) == pytest.approx(1 - confidence, rel=1e-4)


@QUICK
@given(st.integers(1, 10**7))
def test_bound_of_the_dead(n: int) -> None:
    (upper,) = rate_upper(np.array([0]), np.array([n]))
    assert upper == pytest.approx(-math.expm1(math.log(0.05) / n), rel=1e-6)


def test_bound_has_the_shape_of_its_input_and_no_bound_without_inputs() -> None:
    bounds = rate_upper(np.zeros((2, 3), dtype=np.int64), np.zeros((2, 3), dtype=np.int64))
    assert bounds.shape == (2, 3)
    assert (bounds == 1.0).all()


@pytest.mark.parametrize("state", STATES)
def test_order_of_precedence(state: str) -> None:
    """Each state wins over all that follow it."""
    rows = {
        "unobserved": (0, 0, 0, 0.0),
        "non_finite": (10, 0, 1, 0.0),
        "dead": (10, 0, 0, 0.0),
        "starved": (1000, 1, 0, 0.0),
        "rare": (1000, 1, 0, 1.0),
        "always_on": (10, 10, 0, 1.0),
        "active": (10, 5, 0, 1.0),
    }
    assert list(harness.classify(census([rows[state]])).state) == [state]


def test_rare_is_strictly_below() -> None:
    units = harness.classify(census([(1000, 10, 0, 1.0), (1000, 9, 0, 1.0)]))
    assert list(units.state) == ["active", "rare"]


@pytest.mark.parametrize(
    "bad", [{"rare": -0.1}, {"rare": 1.1}, {"rare": math.nan}, {"confidence": 0}, {"confidence": 1}]
)
def test_thresholds_out_of_range(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"rare|confidence"):
        harness.Thresholds(**bad)


@pytest.mark.parametrize("column", ["n", "active", "non_finite"])
def test_missing_column(column: str) -> None:
    with pytest.raises(ValueError, match=column):
        harness.classify(census([(1, 1, 0, 0.0)]).drop(columns=column))


def test_empty_census() -> None:
    assert len(harness.classify(census([]))) == 0
