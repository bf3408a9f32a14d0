"""The comparison accepts the oracle's own numbers, and finds each way of being wrong."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest
import torch
from torch import nn

from tests.zoo.check import compared, digest
from tests.zoo.models import last
from tests.zoo.oracle import Oracle, Truth


@pytest.fixture
def truth() -> Truth:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5), nn.GELU(), nn.LSTM(5, 2))
    oracle = Oracle(net, last)
    with oracle.forward():
        net(torch.randn(6, 3))
    return oracle.truth


def told(truth: Truth) -> pd.DataFrame:
    """A census that says what the oracle saw."""
    rows = [
        (key.caller, unit, sums.n, active, peak, 0, "active" if active else "dead")
        for key, sums in truth.sites.items()
        for unit, (active, peak) in enumerate(zip(sums.active.tolist(), sums.peak.tolist(), strict=True))
    ]
    rows += [(name, -1, 0, 0, float("nan"), 0, "unobserved") for name in truth.fused]
    return pd.DataFrame(rows, columns=["site", "unit", "n", "active", "max", "non_finite", "state"])


KINDS = {"1": "relu", "3": "GELU"}


def test_the_truth_is_accepted(truth: Truth):
    found = compared(truth, told(truth), KINDS)
    assert found["problems"] == []
    assert (found["sites"], found["matched"], found["units"]) == (2, 2, 9)


def more_inputs(t: pd.DataFrame) -> pd.DataFrame:
    return t.assign(n=t["n"].where(t["site"] != "1", 12))


def other_units(t: pd.DataFrame) -> pd.DataFrame:
    """Two units have changed places: all sums are right."""
    t.loc[[0, 1], ["active", "max", "state"]] = t.loc[[1, 0], ["active", "max", "state"]].to_numpy()
    return t


def split_in_two(t: pd.DataFrame) -> pd.DataFrame:
    first, second = t[t["site"] == "1"], t[t["site"] != "1"]
    parts = [first.assign(site=name, n=3, active=a) for name, a in (("1", first["active"]), ("1#1", 0))]
    parts = [p.assign(state=["active" if a else "dead" for a in p["active"]]) for p in parts]
    return pd.concat([*parts, second])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (more_inputs, "not counted right: 1<relu 4u n=6"),
        (other_units, "not counted right|totals right|largest"),
        (split_in_two, "totals right, sites not: 1<relu"),
        (lambda t: t[t["site"] != "3"], "not counted right: 3<gelu 5u n=6"),
        (lambda t: t[t["site"] != "4"], "4 is fused and not named as unobserved"),
        (lambda t: t.assign(max=t["max"] + 1), "the largest pre-activations of 1 differ"),
        (lambda t: t.assign(site=t["site"].replace("3", "2")), "3:gelu is called 2"),
        (lambda t: pd.concat([t, t[t["site"] == "1"].assign(site="9")]), "nobody called 9"),
    ],
)
def test_what_is_wrong_is_found(truth: Truth, change: Callable[[pd.DataFrame], pd.DataFrame], words: str):
    changed = change(told(truth))
    text = "\n".join(compared(truth, changed, KINDS)["problems"])
    assert any(w in text for w in words.split("|")), text


def test_a_wrong_kind_is_found_and_an_exempt_one_is_not(truth: Truth):
    wrong = KINDS | {"1": "relu6"}
    assert "totals right, sites not: 1<relu 4u n=6" in "".join(
        compared(truth, told(truth), wrong)["problems"]
    )
    assert compared(truth, told(truth), wrong, ["1:*"])["problems"] == []


def test_the_digest_is_of_who_was_open_how_often(truth: Truth):
    table = told(truth)
    assert digest(table) == digest(table.assign(max=0.0))
    assert digest(table) != digest(other_units(told(truth)))
