"""`lifetimes` against one unit's story told step by step."""

from __future__ import annotations

import random
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness

STORIES = st.integers(1, 9).flatmap(
    lambda length: st.lists(
        st.lists(
            st.sampled_from(["dead", "dead", "active", "rare", "starved", "always_on", "unobserved"]),
            min_size=length,
            max_size=length,
        ),
        min_size=1,
        max_size=6,
    )
)
QUICK = settings(max_examples=60, deadline=None)


def tell(story: list[str], steps: list[int]) -> dict[str, Any]:
    """Slow truth of one unit."""
    born_dead: bool | None = None
    died_at = revived_at = None
    deaths = seen = 0
    dead = False
    for state, step in zip(story, steps, strict=True):
        if state == "unobserved":
            continue
        seen += 1
        now = state == "dead"
        if born_dead is None:
            born_dead = now
        elif now and not dead:
            deaths += 1
            died_at = step if died_at is None else died_at
        elif dead and not now:
            revived_at = step if revived_at is None else revived_at
        dead = now
    return {
        "born_dead": bool(born_dead),
        "died_at": died_at,
        "revived_at": revived_at,
        "deaths": deaths,
        "dead_now": dead,
        "censuses": seen,
    }


def history_of(stories: list[list[str]], start: int = 0, evidence: str = "stream") -> pd.DataFrame:
    rows = [
        {
            "evidence": evidence,
            "step": start + 10 * i,
            "site": f"s{unit % 2}",
            "unit": unit // 2,
            "state": state,
        }
        for unit, story in enumerate(stories)
        for i, state in enumerate(story)
    ]
    return pd.DataFrame(rows)


def check(found: pd.DataFrame, stories: list[list[str]], start: int = 0) -> None:
    rows: dict[Any, Any] = {(row["site"], row["unit"]): row for row in found.to_dict("records")}
    assert len(rows) == len(found)
    steps = [start + 10 * i for i in range(len(stories[0]))]
    for unit, story in enumerate(stories):
        key, want = (f"s{unit % 2}", unit // 2), tell(story, steps)
        if not want["censuses"]:  # nothing is known of it: no row
            assert key not in rows
            continue
        row = rows[key]
        for name, value in want.items():
            if value is None:
                assert pd.isna(row[name]), (story, name, row[name])
            else:
                assert row[name] == value, (story, name, row[name], value)
        if want["born_dead"] and not want["deaths"]:
            assert pd.isna(row["died_at"])


@QUICK
@given(STORIES, st.sampled_from([0, 1, 100]), st.randoms(use_true_random=False))
def test_lifetimes(stories: list[list[str]], start: int, shuffle: random.Random) -> None:
    history = history_of(stories, start)
    before = history.copy()
    check(harness.lifetimes(history), stories, start)
    pd.testing.assert_frame_equal(history, before)
    order = list(range(len(history)))
    shuffle.shuffle(order)
    check(harness.lifetimes(history.iloc[order].reset_index(drop=True)), stories, start)


@QUICK
@given(STORIES, STORIES)
def test_a_probe_speaks_alone(stream: list[list[str]], probe: list[list[str]]) -> None:
    units = min(len(stream), len(probe))
    stream, probe = stream[:units], probe[:units]
    history = pd.concat([history_of(stream, 10), history_of(probe, 0, "probe")], ignore_index=True)
    check(harness.lifetimes(history), probe)


@pytest.mark.parametrize("column", ["step", "site", "unit", "state"])
def test_missing_column(column: str) -> None:
    with pytest.raises(ValueError, match=column):
        harness.lifetimes(history_of([["dead"]]).drop(columns=column))


def test_thresholds_can_be_changed_afterwards() -> None:
    """States are made anew from the stored counts, and lifetimes from these."""
    history = pd.DataFrame(
        {
            "evidence": "stream",
            "step": [1, 2, 3],
            "site": "s",
            "unit": 0,
            "n": 100,
            "active": [30, 0, 3],
            "non_finite": 0,
            "grad_rms": 1.0,
        }
    )
    first = harness.classify(history)
    assert list(first.state) == ["active", "dead", "active"]
    second = harness.classify(first, harness.Thresholds(rare=0.05))
    assert list(second.state) == ["active", "dead", "rare"]
    for table in (first, second):
        (row,) = harness.lifetimes(table).to_dict("records")
        assert (row["died_at"], row["revived_at"], row["born_dead"]) == (2, 3, False)


def test_censuses_of_several_runs_are_refused() -> None:
    """Pooled, a unit of one run would go on as that of another."""
    one = pd.DataFrame({"step": [0, 1], "evidence": "stream", "site": "a", "unit": 0, "state": "dead"})
    both = pd.concat([one.assign(run="first"), one.assign(run="second")])
    with pytest.raises(ValueError, match=r"expected a table of one run, but got one of 2 .*groupby"):
        harness.lifetimes(both)
    assert len(harness.lifetimes(both[both["run"] == "first"])) == 1
