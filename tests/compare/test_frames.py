"""What counts as a factor, what varies together, and what came of a run."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.compare import aliases, factors, outcomes, phase
from harness.compare.frames import baseline_of, codes, need, values, word


def table(**columns: object) -> pd.DataFrame:
    found = pd.DataFrame(columns)
    found.insert(0, "run", [f"r{k}" for k in range(len(found))])
    found["status"] = "finished"
    return found


def test_what_only_follows_is_no_factor() -> None:
    rows = [
        {
            "activation.name": name,
            "activation.slope": slope,
            "optim.lr": lr,
            "seed": seed,
            "output": f"o{seed}",
        }
        for (name, slope), lr, seed in itertools.product(
            [("relu", None), ("leaky_relu", 0.01)], [0.1, 1.0], [0, 1]
        )
    ]
    found = table(**{key: [row[key] for row in rows] for key in rows[0]}, **{"detect.rare": [0.01, 0.1] * 4})
    assert factors(found) == ["activation.name", "optim.lr"]
    assert aliases(found) == {}  # the slope is part of what leaky_relu means


def test_what_varies_together_is_told() -> None:
    found = table(
        **{"optim.name": ["sgd", "adam"] * 4, "optim.lr": [0.1, 0.001] * 4, "bias.offset": [0, 0, -1, -1] * 2}
    )
    assert factors(found) == ["optim.name", "bias.offset"]
    assert aliases(found) == {"optim.name": ["optim.lr"]}
    assert outcomes(found).attrs["aliases"] == {"optim.name": ["optim.lr"]}


def test_a_random_search_has_factors() -> None:
    rng = np.random.default_rng(0)
    found = table(
        **{
            "activation.name": rng.choice(["relu", "elu"], 60),
            "optim.lr": 10 ** rng.uniform(-3, 1, 60),
            "bias.offset": rng.normal(size=60),
            "model.depth": rng.integers(1, 4, 60),
        }
    )
    assert factors(found) == ["activation.name", "optim.lr", "bias.offset", "model.depth"]


def test_steps_in_lockstep_are_one_factor() -> None:
    found = table(
        **{"optim.lr": [0.1, 0.2, 0.4] * 2, "train.batch_size": [32, 64, 128] * 2, "seed": [0, 0, 0, 1, 1, 1]}
    )
    assert factors(found) == ["optim.lr"]
    assert aliases(found) == {"optim.lr": ["train.batch_size"]}


def test_levels_of_every_kind() -> None:
    column = pd.Series([True, 1, None, "[0.9, 0.999]", float("nan"), 1.0, "a", False], dtype=object)
    index, levels = codes(column)
    assert levels == [None, False, True, 1, "[0.9, 0.999]", "a"]
    assert index.tolist() == [2, 3, 0, 4, 0, 3, 5, 1]
    assert [word(level) for level in levels] == ["null", "false", "true", "1", "[0.9, 0.999]", "a"]
    assert codes(pd.Series([3, 1, 3]))[1] == [1, 3]
    assert codes(pd.Series([1.5, np.nan]))[1] == [None, 1.5]
    assert codes(pd.Series(["b", "a"], dtype="str"))[1] == ["a", "b"]


@pytest.mark.parametrize(
    ("levels", "asked", "found"),
    [
        ([0.01, 0.1, 1], None, 0),
        ([-1, -0.5, 0], None, 2),
        (["elu", "relu", "tanh"], None, 1),
        ([None, 100], None, 0),
        ([False, True], None, 0),
        ([0.01, 0.1], "1e-1", 1),
        ([None, 100], "null", 0),
        ([False, True], "true", 1),
    ],
)
def test_the_baseline(levels: list[object], asked: object, found: int) -> None:
    assert baseline_of(levels, asked) == found


def test_runs_without_a_result_have_no_outcome() -> None:
    found = pd.DataFrame(
        {
            "run": list("abcdef"),
            "status": ["finished", "diverged", "failed", "running", "interrupted", "finished"],
            "seed": 0,
            "optim.lr": [1, 2, 3, 4, 5, 6],
            "final.dead_fraction": [0.5, 0.0, None, None, None, None],
            "final.units": [10, 10, None, None, None, None],
            "final.revived": [2, 0, None, None, None, None],
            "final.accuracy": [0.9, 0.1, None, None, None, 0.8],
        }
    )
    made = outcomes(found)
    assert made["dead"].tolist()[0] == 0.5
    assert made["dead"].iloc[1:].isna().all()
    assert made["revived"].iloc[0] == 0.2
    assert made["accuracy"].dropna().tolist() == [0.9, 0.8]
    assert np.isnan(values(made, "diverged")[2:5]).all()
    assert values(made, "diverged")[[0, 1, 5]].tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match=r"expected one of dead, .*diverged, but got 'loss'"):
        values(made, "loss")


def test_no_runs_at_all() -> None:
    assert outcomes(pd.DataFrame()).empty
    assert factors(pd.DataFrame({"run": []})) == []


def test_asking_for_what_is_not_there() -> None:
    made = outcomes(table(**{"optim.lr": [1, 2], "seed": 0}), also=["seed"]).assign(**{"train.epochs": 3})
    with pytest.raises(ValueError, match=r"factor: there is no column 'lr'; what varies: optim.lr"):
        need(made, "lr")
    with pytest.raises(ValueError, match=r"train.epochs has one value only \(3\); what varies: optim.lr"):
        need(made, "train.epochs")
    with pytest.raises(ValueError, match="nothing but the seed varies"):
        need(made[["run", "status", "seed"]], "optim.lr")


def test_a_phase_diagram_has_every_cell() -> None:
    rows = [
        {"run": str(k), "status": status, "seed": seed, "activation.name": a, "optim.lr": lr, "dead": dead}
        for k, (a, lr, seed, status, dead) in enumerate(
            [
                ("relu", 0.1, 0, "finished", 0.2),
                ("relu", 0.1, 1, "finished", 0.4),
                ("relu", 1.0, 0, "diverged", np.nan),
                ("relu", 1.0, 1, "failed", np.nan),
                ("elu", 0.1, 0, "finished", 0.0),
                ("elu", 0.1, 1, "running", np.nan),
            ]
        )
    ]
    found: Any = phase(pd.DataFrame(rows), "optim.lr", "activation.name").set_index(
        ["optim.lr", "activation.name"]
    )
    assert len(found) == 4
    assert found.loc[(0.1, "relu"), "mean"] == pytest.approx(0.3)
    assert found.loc[(0.1, "elu")].to_dict() == {
        "mean": 0.0,
        "seeds": 1,
        "runs": 2,
        "diverged": 0,
        "failed": 0,
        "unfinished": 1,
    }
    assert np.isnan(found.loc[(1.0, "relu"), "mean"])
    assert found.loc[(1.0, "relu"), ["diverged", "failed"]].tolist() == [1, 1]
    assert found.loc[(1.0, "elu"), "runs"] == 0
    with pytest.raises(ValueError, match="both are optim"):
        phase(pd.DataFrame(rows), "optim.lr", "optim.lr")
