"""The order of units at risk."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from torch import nn

import harness
from harness.attribution.risk import BASE_RATE, COEFFICIENTS, COLUMNS, INTERCEPT, features


def census(step: int = 0, **columns: object) -> pd.DataFrame:
    rows = {
        "evidence": "probe",
        "step": step,
        "site": ["a"] * 4 + ["b"] * 4,
        "unit": [0, 1, 2, 3] * 2,
        "n": 200,
        "active": [0, 2, 100, 200, 90, 100, 110, 120],
        "max": [-0.5, 0.2, 2.0, 3.0, 2.0, 2.0, 2.0, 2.0],
        "std": 1.0,
        "non_finite": 0,
        "state": ["dead", "rare", "active", "always_on"] + ["active"] * 4,
    }
    frame = pd.DataFrame(rows | columns)
    return frame.assign(rate=frame["active"] / frame["n"])


def test_the_rare_of_a_layer_with_dead_come_first_and_the_dead_not_at_all() -> None:
    found = harness.risk(census())
    assert list(found.columns) == COLUMNS
    assert found[["site", "unit"]].iloc[0].tolist() == ["a", 1]
    assert len(found) == 7
    assert found.attrs["dead"] == 1
    assert found["risk"].is_monotonic_decreasing


def test_the_risk_is_a_probability_with_its_base_rate() -> None:
    found = harness.risk(census())
    assert found["risk"].between(0, 1).all()
    assert found.attrs["base_rate"] == BASE_RATE["runs fitted on"]
    healthy = harness.risk(census(active=[100] * 8, state=["active"] * 8))
    assert healthy["risk"].max() < BASE_RATE["runs fitted on"]
    states = ["dead"] * 3 + ["rare"] + ["active"] * 4
    dying = harness.risk(census(active=[0, 0, 0, 1, *[100] * 4], state=states))
    assert dying["risk"].iloc[0] > 10 * healthy["risk"].max()


@pytest.mark.parametrize("state", ["unobserved", "non_finite"])
def test_a_run_of_which_nothing_is_known_says_so(state: str) -> None:
    with pytest.raises(ValueError, match="no unit was observed with finite values in any census"):
        harness.risk(census(state=[state] * 8))


def test_the_score_is_the_sum_of_its_terms() -> None:
    rows = census()
    found = features(rows)
    table = harness.risk(rows)
    score = table.loc[table["site"].eq("a") & table["unit"].eq(1), "risk"].item()
    expected = {
        "dead": 0.0,
        "log_rate": np.log10(0.01),
        "margin": 0.2,
        "layer_dead": 0.25,
        "layer_rate": np.mean([0, 0.01, 0.5, 1.0]),
        "dead_in_dead_layer": 0.0,
    }
    assert found.iloc[1].to_dict() == pytest.approx(expected)
    log_odds = INTERCEPT + sum(COEFFICIENTS[k] * v for k, v in expected.items())
    assert score == pytest.approx(1 / (1 + np.exp(-log_odds)))


def test_units_without_a_verdict_are_left_out() -> None:
    rows = census(state=["unobserved", "non_finite"] + ["active"] * 6)
    assert len(harness.risk(rows)) == 6


def test_the_census_is_chosen_and_the_probe_preferred() -> None:
    early, late = census(0), census(10, active=[200] * 8, state=["always_on"] * 8)
    both = pd.concat([early, late, census(20).assign(evidence="stream")])
    assert harness.risk(both)["state"].eq("always_on").all()
    assert harness.risk(both, step=0).iloc[0]["state"] == "rare"


@pytest.mark.parametrize(
    ("history", "step", "says"),
    [(census().drop(columns="max"), None, "max"), (census(), 7, "got 7. Steps: 0")],
)
def test_bad_input_is_told(history: pd.DataFrame, step: int | None, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        harness.risk(history, step)


@pytest.mark.parametrize("given", [nn.Linear(1, 1), [1, 2], None])
def test_what_is_no_table_is_refused(given: Any) -> None:
    with pytest.raises(TypeError, match=r"recorder.history\(\)"):
        harness.risk(given)
