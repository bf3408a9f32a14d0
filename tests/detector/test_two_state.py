"""Rates, overlaps, dormancy: against counting by hand, and rates against a process whose rates are known."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import harness
from harness.detector.dormancy import dormancy
from harness.detector.grid import census_grid
from harness.detector.overlap import overlap
from harness.detector.two_state import poisson_interval, two_state

STATES = st.sampled_from(["dead", "dead", "active", "starved", "unobserved", "non_finite"])
HISTORY = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from("ab"), st.integers(0, 2), STATES), min_size=1, max_size=30
)
QUICK = settings(max_examples=120, deadline=None)


def history(rows: list[tuple[int, str, int, str]], evidence: str = "stream") -> pd.DataFrame:
    return pd.DataFrame(rows, columns=pd.Index(["step", "site", "unit", "state"])).assign(evidence=evidence)


def told(rows: list[tuple[int, str, int, str]]) -> dict[tuple[str, int], list[tuple[int, bool]]]:
    """Of each unit: the steps at which something was said of it, and whether it was dead."""
    found: dict[tuple[str, int], list[tuple[int, bool]]] = {}
    for step, site, unit, state in sorted(rows, key=lambda row: row[0]):
        if state not in ("unobserved", "non_finite"):
            found.setdefault((site, unit), []).append((step, state == "dead"))
    return found


@QUICK
@given(HISTORY)
def test_counts_by_hand(rows: list[tuple[int, str, int, str]]) -> None:
    """Any order, gaps, several censuses at one step."""
    table = two_state(history(rows)).set_index("site")
    for site in {site for _, site, _, _ in rows}:
        want = dict.fromkeys(
            ("units", "born_dead", "dead", "deaths", "revivals", "alive_steps", "dead_steps"), 0
        )
        for (where, _), seen in told(rows).items():
            if where != site:
                continue
            want["units"] += 1
            want["born_dead"] += seen[0][1]
            want["dead"] += seen[-1][1]
            for (before, was), (after, now) in itertools.pairwise(seen):
                want["deaths"] += now and not was
                want["revivals"] += was and not now
                want["dead_steps" if was else "alive_steps"] += after - before
        for name, value in want.items():
            assert table.loc[site, name] == value, name


@QUICK
@given(HISTORY, st.integers(1, 4), st.randoms(use_true_random=False))
def test_persistently_dead(rows: list[tuple[int, str, int, str]], k: int, shuffle: random.Random) -> None:
    rows = list({(step, site, unit): (step, site, unit, state) for step, site, unit, state in rows}.values())
    shuffle.shuffle(rows)
    found = harness.lifetimes(history(rows), persistent=k).set_index(["site", "unit"])
    for key, seen in told(rows).items():
        assert found.loc[key, "persistently_dead"] == (len(seen) >= k and all(dead for _, dead in seen[-k:]))


def test_rates_of_a_known_process() -> None:
    """A unit changes over with chance 0.02 (death) and 0.05 (revival) per step; a census at every step."""
    rng = np.random.default_rng(0)
    steps, units = 400, 300
    dead = np.zeros((steps, units), bool)
    for k in range(1, steps):
        dead[k] = np.where(dead[k - 1], rng.random(units) > 0.05, rng.random(units) < 0.02)
    step, unit = np.divmod(np.arange(steps * units), units)
    state = np.where(dead.ravel(), "dead", "active")
    table = two_state(
        pd.DataFrame({"step": step, "unit": unit, "state": state}).assign(site="a", evidence="probe")
    )
    (row,) = table.to_dict("records")
    assert row["death_low"] < 20 < row["death_high"]
    assert row["revival_low"] < 50 < row["revival_high"]
    assert row["balance"] == pytest.approx(2 / 7, abs=0.02)


def test_rates_without_exposure_or_events() -> None:
    table: Any = two_state(
        history([(0, "a", 0, "active"), (3000, "a", 0, "active"), (0, "b", 0, "dead")])
    ).set_index("site")
    assert table.loc["a", "death_rate"] == 0
    assert table.loc["a", "death_high"] == pytest.approx(-np.log(0.025) / 3)  # 0 events still have a bound
    assert np.isnan(table.loc["a", ["revival_rate", "balance"]].to_numpy(float)).all()
    assert np.isnan(table.loc["b", "death_rate"])
    assert two_state(history([(0, "a", 0, "active")]).iloc[:0]).empty
    with pytest.raises(ValueError, match="confidence"):
        two_state(history([(0, "a", 0, "active")]), confidence=95)


def test_poisson_interval_is_garwoods() -> None:
    k = np.arange(20)
    low, high = poisson_interval(k, 0.9)
    assert low[1:].tolist() == pytest.approx((stats.chi2.ppf(0.05, 2 * k[1:]) / 2).tolist())
    assert high.tolist() == pytest.approx((stats.chi2.ppf(0.95, 2 * k + 2) / 2).tolist())


def test_other_states_can_count_as_dead() -> None:
    rows = history([(0, "a", 0, "active"), (10, "a", 0, "starved"), (20, "a", 0, "active")])
    assert two_state(rows)["deaths"].tolist() == [0]
    assert two_state(rows, down=("dead", "starved"))["deaths"].tolist() == [1]
    assert harness.lifetimes(rows, down=("dead", "starved"))["died_at"].tolist() == [10]


@QUICK
@given(HISTORY, st.sampled_from(["previous", "first", "last"]))
def test_overlap_by_hand(rows: list[tuple[int, str, int, str]], against: str) -> None:
    rows = list({(step, site, unit): (step, site, unit, state) for step, site, unit, state in rows}.values())
    steps = sorted({row[0] for row in rows})
    sets = {}
    for site in {row[1] for row in rows}:
        for step in steps:
            seen = {
                u: s == "dead"
                for t, w, u, s in rows
                if (t, w) == (step, site) and s not in ("unobserved", "non_finite")
            }
            sets[step, site] = seen
    for row in overlap(history(rows), against=against).to_dict("records"):
        place = steps.index(row["step"])
        other = {"previous": steps[place - 1], "first": steps[0], "last": steps[-1]}[against]
        assert row["other"] == other
        here, there = sets[row["step"], row["site"]], sets[other, row["site"]]
        common = here.keys() & there.keys()
        a, b = ({u for u in common if seen[u]} for seen in (here, there))
        assert (row["units"], row["dead"], row["dead_other"], row["both"]) == (
            len(common),
            len(a),
            len(b),
            len(a & b),
        )
        if a and b:
            assert row["overlap"] == pytest.approx(len(a & b) / min(len(a), len(b)))
        else:
            assert np.isnan(row["overlap"])


def test_overlap_asks_for_a_known_census() -> None:
    with pytest.raises(ValueError, match="previous, first, last, but got 'next'"):
        overlap(history([(0, "a", 0, "dead")]), against="next")


def test_dormancy_by_gradients() -> None:
    census = pd.DataFrame(
        {
            "evidence": "stream",
            "step": 5,
            "site": ["a"] * 4 + ["b"] * 2 + ["c"],
            "unit": [0, 1, 2, 3, 0, 1, 0],
            "state": ["dead", "active", "active", "active", "dead", "starved", "active"],
            "grad_norm": [0.0, 0.1, 1.9, 2.0, 0.0, 0.0, np.nan],
        }
    )
    found = dormancy(census, taus=(0.0, 0.1)).set_index(["site", "tau"])
    assert found["dormant"].tolist() == [1, 2, 2, 2, 0, 0]  # a layer without gradient is dormant as a whole
    assert found["dead"].tolist() == [1, 1, 1, 1, 0, 0]
    assert found["units"].tolist() == [4, 4, 2, 2, 0, 0]
    assert found["share"].tolist()[:4] == [0.25, 0.5, 1, 1]
    assert found["share"].iloc[4:].isna().all()  # nothing is known of c: not 0 %
    with pytest.raises(ValueError, match=r"mean_abs is missing; scores that it has: grad_norm"):
        dormancy(census, score="mean_abs")
    with pytest.raises(ValueError, match="at least 0"):
        dormancy(census, taus=(-1,))
    with pytest.raises(ValueError, match="without negative values"):
        dormancy(census.assign(grad_norm=-1.0))


def test_the_matrix_of_a_regular_history_is_that_of_its_rows_in_any_order() -> None:
    rng = np.random.default_rng(1)
    rows = [
        (step, site, unit, str(rng.choice(["dead", "active", "unobserved"])))
        for step in (0, 5, 5, 9)
        for site in "ba"
        for unit in range(3)
    ]
    straight = census_grid(history(rows))
    for table in (history(rows).astype({"site": "category", "state": "category", "evidence": "category"}),):
        again = census_grid(table)
        assert (again.dead == straight.dead).all()
        assert again.site.tolist() == straight.site.tolist()
    order = rng.permutation(len(rows))
    stable = sorted(order, key=lambda k: (k // 6, rng.random()))  # censuses stay in order, units do not
    mixed = census_grid(history([rows[k] for k in stable]))
    keys = list(zip(mixed.site, mixed.unit, strict=True))
    place = [keys.index(key) for key in zip(straight.site, straight.unit, strict=True)]
    assert (mixed.dead[:, place] == straight.dead).all()
    assert (mixed.observed[:, place] == straight.observed).all()
    assert mixed.step.tolist() == straight.step.tolist() == [0, 5, 5, 9]
