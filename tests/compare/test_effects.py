"""Effects and rankings against sums by hand, and their error rates on whole sweeps."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_up import frame

from harness.compare import effects, ranking
from harness.compare.bootstrap import mean_interval
from harness.compare.permutation import sign_flip

GRID = {"optim.lr": [0.1, 1.0], "bias.offset": [0, -1]}


def noisy(seed: int = 0, **weights: float) -> Any:
    rng = np.random.default_rng(seed)

    def dead(setting: dict[str, Any], number: int) -> float:
        lr, bias = setting["optim.lr"] > 0.5, setting["bias.offset"] < 0
        effect = (
            weights.get("lr", 0) * lr + weights.get("bias", 0) * bias + weights.get("both", 0) * (lr and bias)
        )
        return 0.2 + effect + 0.02 * number + weights.get("noise", 0.02) * rng.normal()

    return dead


def test_differences_are_those_of_pairs() -> None:
    found = frame(GRID, 6, noisy(lr=0.3))
    (row,) = effects(found, "optim.lr", outcomes=["dead"]).to_dict("records")
    wide = found.pivot_table(index="seed", columns=["optim.lr", "bias.offset"], values="dead")
    d = ((wide[(1.0, 0)] - wide[(0.1, 0)]) + (wide[(1.0, -1)] - wide[(0.1, -1)])).to_numpy() / 2
    assert row["difference"] == pytest.approx(d.mean())
    assert (row["low"], row["high"]) == pytest.approx(mean_interval(d))
    assert row["p"] == sign_flip(d) == 2 / 64
    assert row["pairs"] == 6
    assert row["mean"] - row["baseline_mean"] == pytest.approx(row["difference"])
    assert (row["level"], row["baseline"], row["factor"], row["note"]) == (1.0, 0.1, "optim.lr", "")


def test_settings_are_told_apart_and_corrected_together() -> None:
    found = effects(
        frame(GRID, 6, noisy(lr=0.3, both=0.2)),
        "optim.lr",
        by="bias.offset",
        outcomes="dead",
        correction="holm",
    )
    assert found["bias.offset"].tolist() == [-1, 0]
    assert found["difference"].round(1).tolist() == [0.5, 0.3]
    assert found["p"].tolist() == [2 / 64] * 2
    assert found["p_adjusted"].tolist() == [4 / 64] * 2
    for correction in ("fdr", "max_t"):
        raw = effects(
            frame(GRID, 6, noisy(lr=0.3)),
            "optim.lr",
            by="bias.offset",
            outcomes="dead",
            correction=correction,
        )
        assert raw["p_adjusted"].tolist() == [2 / 64] * 2


def test_several_factors_are_corrected_together() -> None:
    found = frame(GRID, 6, noisy(lr=0.3, bias=0.01))
    both: Any = effects(found, ["optim.lr", "bias.offset"], outcomes="dead").set_index("factor")
    alone: Any = effects(found, "bias.offset", outcomes="dead")
    assert both.index.tolist() == ["optim.lr", "bias.offset"]
    assert both.loc["bias.offset", "p"] == alone["p"][0] == alone["p_adjusted"][0]
    assert both.loc["optim.lr", "p_adjusted"] == both.loc["optim.lr", "p"] == 2 / 64
    with pytest.raises(ValueError, match="give that factor alone"):
        effects(found, ["optim.lr", "bias.offset"], baseline=0.1)


def test_lost_runs_are_counted_and_part_of_no_pair() -> None:
    found = frame(GRID, 6, noisy(lr=0.3))
    lost = (found["optim.lr"] == 1.0) & (found["bias.offset"] == 0) & (found["seed"] < 3)
    found.loc[lost, "dead"] = np.nan
    found.loc[lost, "status"] = ["diverged", "failed", "running"]
    (row,) = effects(found, "optim.lr", outcomes=["dead"]).to_dict("records")
    assert [row[name] for name in ("runs", "diverged", "failed", "unfinished")] == [12, 1, 1, 1]
    assert [row[f"baseline_{name}"] for name in ("runs", "diverged")] == [12, 0]
    assert row["note"] == "9 of 12 pairs have both outcomes"
    wide = found.pivot_table(index="seed", columns=["optim.lr", "bias.offset"], values="dead")
    d = np.nanmean([wide[(1.0, b)] - wide[(0.1, b)] for b in (0, -1)], axis=0)
    assert row["difference"] == pytest.approx(d.mean())
    (share,) = effects(found, "optim.lr", outcomes=["diverged"]).to_dict("records")
    assert share["difference"] == pytest.approx(np.mean([1 / 2, 0, 0, 0, 0, 0]))


def test_a_level_that_always_diverges_has_no_effect_but_a_count() -> None:
    found = frame({"optim.lr": [0.1, 10.0], "bias.offset": [0, -1]}, 4, noisy())
    found.loc[found["optim.lr"] == 10, ["dead", "status"]] = [np.nan, "diverged"]
    (row,) = effects(found, "optim.lr", outcomes=["dead"]).to_dict("records")
    assert np.isnan([row[name] for name in ("difference", "low", "high", "p", "p_adjusted", "mean")]).all()
    assert row["diverged"] == row["runs"] == 8
    assert row["note"] == "no run at this level has this outcome"


def test_one_seed_has_no_interval() -> None:
    (row,) = effects(frame(GRID, 1, noisy(lr=0.3)), "optim.lr", outcomes=["dead"]).to_dict("records")
    assert row["difference"] == pytest.approx(0.3, abs=0.1)
    assert np.isnan([row["low"], row["high"], row["p"]]).all()
    assert "one seed: no interval" in row["note"]


def test_seeds_that_differ_are_compared_as_independent() -> None:
    found = frame({"optim.lr": [0.1, 1.0], "bias.offset": [0, -1]}, 5, noisy(lr=0.4))
    found["seed"] += np.where(found["optim.lr"] > 0.5, 100, 0)
    (row,) = effects(found, "optim.lr", outcomes=["dead"]).to_dict("records")
    assert row["pairs"] == 0
    assert "as if independent" in row["note"]
    assert row["low"] < row["difference"] < row["high"]
    assert row["p"] == pytest.approx(2 / 252)


def test_what_varies_together_does_not_stop_the_pairing() -> None:
    rows = [
        {"run": f"{k}", "status": "finished", "seed": seed, "optim.name": name, "optim.lr": lr, "dead": dead}
        for k, (seed, (name, lr, dead)) in enumerate(
            itertools.product(range(5), [("sgd", 0.1, 0.1), ("adam", 0.001, 0.3)])
        )
    ]
    for factor in ("optim.name", "optim.lr"):
        (row,) = effects(pd.DataFrame(rows), factor, outcomes=["dead"]).to_dict("records")
        assert row["pairs"] == 5
        assert abs(row["difference"]) == pytest.approx(0.2)


def test_a_factor_that_some_levels_lack_is_averaged_over() -> None:
    """Leaky slopes 0.01 and 0.1 beside ReLU, which has none."""
    rows = [
        {
            "run": f"{k}",
            "status": "finished",
            "seed": s,
            "activation.name": a,
            "activation.slope": slope,
            "dead": d,
        }
        for k, (s, (a, slope, d)) in enumerate(
            itertools.product(range(4), [("relu", None, 0.5), ("leaky", 0.01, 0.2), ("leaky", 0.1, 0.1)])
        )
    ]
    (row,) = effects(pd.DataFrame(rows), "activation.name", outcomes=["dead"]).to_dict("records")
    assert (row["level"], row["baseline"], row["pairs"]) == ("leaky", "relu", 4)
    assert row["difference"] == pytest.approx(0.15 - 0.5)


def test_repeated_runs_count_once() -> None:
    found = frame(GRID, 4, noisy(lr=0.3))
    twice = pd.concat([found, found], ignore_index=True)
    once, again = (
        effects(table, "optim.lr", outcomes="dead")[["difference", "low", "high", "p", "pairs"]]
        for table in (found, twice)
    )
    pd.testing.assert_frame_equal(once, again)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"factor": "optim.lrr"}, "no column 'optim.lrr'; what varies: optim.lr, bias.offset"),
        ({"factor": "optim.lr", "by": ["optim.lr"]}, "is the factor itself"),
        ({"factor": "optim.lr", "by": ["seed"]}, "by: the seed is the unit of analysis"),
        ({"factor": "optim.lr", "outcomes": ["dead"], "baseline": 3}, "levels 0.1, 1, but got 3"),
        ({"factor": "optim.lr", "outcomes": ["lost"]}, "expected one of dead, diverged, but got 'lost'"),
        (
            {"factor": "optim.lr", "outcomes": ["dead"], "correction": "x"},
            "correction: expected one of max_t",
        ),
    ],
)
def test_errors(arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        effects(frame(GRID, 2, noisy()), **arguments)


def test_the_ranking_is_the_analysis_of_variance_of_a_balanced_design() -> None:
    found = frame(GRID, 5, noisy(lr=0.3, bias=0.1, both=0.1))
    y = found["dead"].to_numpy().reshape(2, 2, 5)  # lr, bias, seed
    total = np.square(y - y.mean()).sum()
    lr = 10 * np.square(y.mean((1, 2)) - y.mean()).sum() / total
    bias = 10 * np.square(y.mean((0, 2)) - y.mean()).sum() / total
    both = 5 * np.square(y.mean(2) - y.mean()).sum() / total - lr - bias
    seed = 4 * np.square(y.mean((0, 1)) - y.mean()).sum() / total
    table = ranking(found)
    assert table["term"].tolist() == ["optim.lr", "bias.offset", "optim.lr × bias.offset"]
    assert table["share"].tolist() == pytest.approx([lr, bias, both])
    assert table.attrs["seed"] == pytest.approx(seed)
    assert table.attrs["rest"] == pytest.approx(1 - lr - bias - both - seed)
    assert table["p"].tolist() == [2 / 32] * 3
    assert ((table["low"] <= table["share"]) & (table["share"] <= table["high"])).all()


def test_the_ranking_of_an_unbalanced_design_is_type_two() -> None:
    """Against least squares on dummy columns."""
    found = frame({**GRID, "model.depth": [1, 2, 3]}, 4, noisy(lr=0.3, bias=0.1, noise=0.1))
    kept = found.drop(index=[0, 1, 2, 3, 4, 9, 17, 30, 31]).reset_index(drop=True)
    cells = (
        kept.groupby(["optim.lr", "bias.offset", "model.depth"])["dead"].agg(["mean", "size"]).reset_index()
    )
    weight = np.sqrt(cells["size"].to_numpy())

    def left(*columns: str) -> float:
        dummies = [pd.get_dummies(cells[c]).to_numpy(float) for c in columns]
        x = np.concatenate([np.ones((len(cells), 1)), *dummies], axis=1) * weight[:, None]
        y = cells["mean"].to_numpy() * weight
        return float(np.square(y - x @ np.linalg.lstsq(x, y)[0]).sum())

    names = ["optim.lr", "bias.offset", "model.depth"]
    total = np.square(kept["dead"] - kept["dead"].mean()).sum()
    table = ranking(kept).set_index("term")
    for name in names:
        others = [other for other in names if other != name]
        assert table.loc[name, "share"] == pytest.approx((left(*others) - left(*names)) / total, rel=1e-4)


def test_a_random_search_is_ranked_in_bins() -> None:
    rng = np.random.default_rng(3)
    n = 200
    lr = 10 ** rng.uniform(-3, 1, n)
    found = pd.DataFrame({"run": range(n), "status": "finished", "seed": range(n), "optim.lr": lr})
    found["bias.offset"] = rng.normal(size=n)
    found["dead"] = 1 / (1 + (0.3 / lr) ** 2) + 0.05 * rng.normal(size=n)
    table: Any = ranking(found)
    assert table["term"].iloc[0] == "optim.lr"
    assert table["levels"].iloc[0] == 8
    assert table["share"].iloc[0] > 0.8
    assert table.set_index("term").loc["optim.lr", "p_adjusted"] < 0.01
    assert table.set_index("term").loc["bias.offset", "p"] > 0.05


def test_what_never_changes_is_not_explained() -> None:
    table = ranking(frame(GRID, 4, lambda setting, seed: 0.0))
    assert table["share"].isna().all()
    assert (table["p"] == 1).all()
    one = ranking(frame(GRID, 1, noisy(lr=0.3)))
    assert one[["low", "high", "p"]].isna().all(axis=None)


def test_error_rates_on_null_sweeps_and_power_on_a_real_one() -> None:
    """Whole sweeps: 3 learning rates × 2 biases × 8 seeds; bias and seed matter, the rate does not."""
    trials, expected = 100, 0.05
    rejected = {"effects": 0, "ranking": 0, "interaction": 0, "outcomes": 0}
    noise = np.random.default_rng(0).normal(scale=0.02, size=(trials, 48))
    for trial in range(trials):
        null = frame({"optim.lr": [0.01, 0.1, 1.0], "bias.offset": [0, -1]}, 8, noisy(trial, bias=0.2))
        rejected["effects"] += effects(null, "optim.lr", outcomes=["dead"])["p_adjusted"].min() <= 0.05
        null["accuracy"] = np.sqrt(null["dead"]) + noise[trial]  # a test beside that depends on it
        both = effects(null, "optim.lr", outcomes=["dead", "accuracy"])
        rejected["outcomes"] += both["p_adjusted"].min() <= 0.05
        table: Any = ranking(null, correction="none").set_index("term")
        rejected["ranking"] += table.loc["optim.lr", "p"] <= 0.05
        rejected["interaction"] += table.loc["optim.lr × bias.offset", "p"] <= 0.05
        assert table.loc["bias.offset", "p"] == 2 / 256
    bound = expected + 4 * np.sqrt(expected * (1 - expected) / trials)
    assert all(count / trials <= bound for count in rejected.values())
    real = frame(GRID, 8, noisy(lr=0.05))
    (row,) = effects(real, "optim.lr", outcomes=["dead"]).to_dict("records")
    assert row["p"] == 2 / 256
    assert row["low"] > 0
