"""The rounds: within the budget, longer and fewer, and the whole training in the end where it is paid for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.trials.halving import CONTROLS, FEWEST, rounds


@given(
    cures=st.integers(1, 40),
    seeds=st.integers(2, 8),
    total=st.integers(1, 100_000),
    least=st.integers(0, 2000),
    budget=st.floats(1, 1000),
    fixed=st.integers(0, 100),
)
def test_rounds_grow_longer_and_have_fewer_arms(
    cures: int, seeds: int, total: int, least: int, budget: float, fixed: int
) -> None:
    plan = rounds(cures, seeds, total, least, budget, fixed)
    assert 1 <= len(plan) <= 3
    steps = [one.steps for one in plan]
    assert steps == sorted(steps)
    assert all(min(least, total) <= one.steps <= total for one in plan)
    assert plan[0].arms <= cures + CONTROLS
    assert plan[-1].seeds == seeds
    work = sum(one.arms * (one.steps + fixed) * one.seeds for one in plan)
    shortest = min(max(least, total // 20, 1), total)
    few = 3 * (FEWEST + CONTROLS + 1) * seeds * (shortest + fixed)  # what it takes to see anything
    assert work <= max(budget * (total + fixed), few) * 1.01


def test_a_large_budget_trains_every_cure_to_the_end() -> None:
    plan = rounds(5, seeds=3, total=100, least=10, budget=21)
    assert [(one.arms, one.steps, one.seeds) for one in plan] == [(7, 100, 3)]


def test_less_than_one_run_is_refused() -> None:
    with pytest.raises(ValueError, match=r"budget: expected at least one run's own time, but got 0\.5"):
        rounds(5, seeds=3, total=100, least=10, budget=0.5)
