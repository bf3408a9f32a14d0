"""Survival against scipy's estimators where units are independent, and by clusters where they are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_up import story, write_run
from scipy import stats

from harness.compare import dead_over_time, lives, logrank, survival, two_state_rates
from harness.compare.frames import outcomes
from harness.compare.life_tables import COUNTS, Lives
from harness.compare.survival_curves import kaplan_meier
from harness.store.runs import open_runs

STEPS = list(range(0, 110, 10))


Units = list[tuple[float, bool]]  # age in whole steps, and whether it died


def lives_of(arms: dict[str, list[Units]]) -> Lives:
    """Lives of runs given as units; one run per seed and arm, all enter at step 0."""
    runs = [(arm, seed, np.array(units)) for arm, runs in arms.items() for seed, units in enumerate(runs)]
    frame = pd.DataFrame(
        [
            {"run": f"{arm}{seed}", "status": "finished", "seed": seed, "arm.name": arm}
            for arm, seed, _ in runs
        ]
    ).assign(dead=0.0)
    end = 1 + int(max(units[:, 0].max() for _, _, units in runs))
    counts = {name: np.zeros((len(runs), end), int) for name in COUNTS}
    for k, (_, _, units) in enumerate(runs):
        age, dead = units[:, 0].astype(int), units[:, 1] > 0
        counts["entered"][k, 0] = len(units)
        counts["died"][k] = np.bincount(age[dead], minlength=end)
        counts["ended"][k] = np.bincount(age[~dead], minlength=end)
    table = pd.DataFrame({name: values.ravel() for name, values in counts.items()})
    place, step = np.repeat(np.arange(len(runs)), end), np.tile(np.arange(end), len(runs))
    return Lives(frame, table.assign(place=place, site="a", step=step))


def censored(units: Units) -> stats.CensoredData:
    return stats.CensoredData(
        uncensored=[age for age, dead in units if dead], right=[age for age, dead in units if not dead]
    )


def draw(rng: np.random.Generator, n: int, scale: float) -> Units:
    age, end = np.ceil(rng.exponential(scale, n)), np.ceil(rng.uniform(1, 30, n))
    return [(float(min(a, c)), bool(a <= c)) for a, c in zip(age, end, strict=True)]


@pytest.mark.parametrize("seed", range(5))
def test_the_curve_is_scipys_ecdf_of_censored_data(seed: int) -> None:
    rng = np.random.default_rng(seed)
    runs = [draw(rng, 40, 12) for _ in range(3)]
    found = survival(lives_of({"x": runs})).set_index("step")["survival"]
    theirs = stats.ecdf(censored([unit for run in runs for unit in run])).sf
    for step, value in zip(theirs.quantiles, theirs.probabilities, strict=True):
        assert found[step] == pytest.approx(value)


def test_kaplan_and_meier_by_hand() -> None:
    # 5 units: died at 3, censored at 4, died at 6, 6, censored at 9
    found = survival(lives_of({"x": [[(3, True), (4, False), (6, True), (6, True), (9, False)]]}))
    found = found[found["step"].isin([0, 3, 4, 6, 9])]
    assert found["survival"].tolist() == pytest.approx([1, 0.8, 0.8, 0.8 * 1 / 3, 0.8 * 1 / 3])
    assert found["at_risk"].tolist() == [5, 5, 4, 3, 1]
    assert found[["low", "high"]].isna().all(axis=None)  # one seed: no interval exists


@pytest.mark.parametrize("seed", range(6))
def test_with_one_unit_per_run_it_is_scipys_logrank_test(seed: int) -> None:
    """Scores sum to observed - expected; by their hypergeometric variance this is scipy's statistic."""
    rng = np.random.default_rng(seed)
    a, b = draw(rng, 60, 8), draw(rng, 60, 14)
    kept = lives_of({"a": [[unit] for unit in a], "b": [[unit] for unit in b]})
    kept.outcomes["seed"] = np.arange(120)  # all independent: no pairs
    (row,) = logrank(kept, "arm.name", baseline="b").to_dict("records")
    variance = 0.0
    for time in sorted({age for age, dead in a + b if dead}):
        n_a, n_b = (sum(age >= time for age, _ in units) for units in (a, b))
        d, n = sum(age == time and dead for age, dead in a + b), n_a + n_b
        variance += d * n_a * n_b * (n - d) / (n**2 * (n - 1)) if n > 1 else 0
    theirs = stats.logrank(censored(a), censored(b))
    assert (row["died"] - row["expected"]) / np.sqrt(variance) == pytest.approx(theirs.statistic)
    assert row["statistic"] == pytest.approx(theirs.statistic, rel=0.1, abs=0.1)
    assert row["p"] == pytest.approx(theirs.pvalue, abs=0.03)


def test_the_test_is_clustered_and_keeps_its_level() -> None:
    """Each run has a frailty of its own, so that its 60 units die together: a null sweep."""
    rng = np.random.default_rng(11)
    trials, clustered, naive = 200, 0, 0
    for _ in range(trials):
        arms = {arm: [draw(rng, 60, 12 * rng.lognormal(0, 0.8)) for _ in range(8)] for arm in "ab"}
        clustered += logrank(lives_of(arms), "arm.name")["p"].iloc[0] <= 0.05
        a, b = (censored([unit for run in runs for unit in run]) for runs in arms.values())
        naive += stats.logrank(a, b).pvalue <= 0.05
    expected = 12 / 256  # attainable level of 8 sign flips: 6 of 128
    assert abs(clustered / trials - expected) <= 4 * np.sqrt(expected * (1 - expected) / trials)
    assert naive / trials > 0.4  # which is why


def test_the_clustered_interval_covers() -> None:
    rng = np.random.default_rng(12)
    trials, covered = 250, 0
    scales = 20 * rng.lognormal(0, 0.5, 4000)
    truth = float(np.mean(np.exp(-10 / scales)))  # still alive after 10 steps, over all runs
    for _ in range(trials):
        kept = lives_of({"x": [draw(rng, 40, scale) for scale in rng.choice(scales, 8)]})
        found = survival(kept)
        row = found.loc[found["step"] == 10].iloc[0]
        covered += row["low"] <= truth <= row["high"]
    assert abs(covered / trials - 0.95) <= 4 * np.sqrt(0.95 * 0.05 / trials)


def test_a_real_effect_is_found() -> None:
    rng = np.random.default_rng(13)
    arms = {"a": [draw(rng, 60, 6) for _ in range(8)], "b": [draw(rng, 60, 20) for _ in range(8)]}
    (row,) = logrank(lives_of(arms), "arm.name", baseline="b").to_dict("records")
    assert row["p"] == 2 / 256
    assert row["statistic"] > 2
    assert row["pairs"] == 8


def sweep(root: Path) -> None:
    """Two arms, three seeds; one run diverged half way, one running, one damaged."""
    for seed in range(3):
        for lr, died in ((0.1, 90), (1.0, 30)):
            stories = [story(died + 10 * (seed - 1), 11, STEPS) for _ in range(4)] + [["dead"] * 11]
            config = {"optim": {"lr": lr}, "seed": seed}
            write_run(root, f"lr{lr}-s{seed}", config, stories, STEPS)
    write_run(
        root,
        "diverged",
        {"optim": {"lr": 1.0}, "seed": 3},
        [story(None, 3, STEPS)] * 5,
        STEPS[:3],
        state="diverged",
    )
    write_run(
        root,
        "running",
        {"optim": {"lr": 0.1}, "seed": 3},
        [story(None, 5, STEPS)] * 5,
        STEPS[:5],
        state="running",
        finish=False,
    )
    write_run(root, "torn", {"optim": {"lr": 0.1}, "seed": 4}, [story(None, 5, STEPS)], STEPS[:5])
    (root / "torn" / "census.parquet").write_bytes(b"PAR1 but no more")


def test_runs_on_disk(tmp_path: Path) -> None:
    sweep(tmp_path)
    kept = lives(open_runs(tmp_path))
    assert list(kept.unread) == ["torn"]
    found = survival(kept, "optim.lr")
    ends = found.groupby("optim.lr").last()
    assert ends["units"].tolist() == [20, 20]
    assert ends["born_dead"].tolist() == [3, 3]
    assert ends["diverged"].tolist() == [0, 1]
    assert ends["unfinished"].tolist() == [1, 0]
    slow = found[found["optim.lr"] == 0.1].set_index("step")
    assert slow.loc[[0, 40, 80, 90, 100], "survival"].tolist() == pytest.approx([1, 1, 2 / 3, 1 / 3, 0])
    assert slow.loc[50, "at_risk"] == 12  # the running run is censored at 40
    assert slow["runs"].tolist() == [4] * 5 + [3] * 6
    fast = found[found["optim.lr"] == 1.0].set_index("step")
    assert fast.loc[[20, 30, 40], "survival"].tolist() == pytest.approx(
        [13 / 17, 13 / 34, 0]
    )  # 5 censored at 20
    assert (found["low"] <= found["survival"]).all()
    assert (found["survival"] <= found["high"]).all()
    over_time = dead_over_time(kept, "optim.lr").set_index(["optim.lr", "step"])
    assert over_time.loc[(0.1, 0), "dead"] == pytest.approx((3 * 0.2 + 0) / 4)
    assert over_time.loc[(0.1, 100), "dead"] == 1
    rates: Any = two_state_rates(kept, "optim.lr").set_index("optim.lr")
    assert rates["deaths"].tolist() == [12, 12]
    assert rates.loc[0.1, "alive_steps"] == 4 * (80 + 90 + 100) + 5 * 40
    assert rates.loc[0.1, "death_rate"] == pytest.approx(1000 * 12 / 1280)
    assert rates.loc[0.1, "revival_rate"] == 0
    bound = 1000 * -np.log(0.025) / rates.loc[0.1, "dead_steps"]  # nothing happened: exact, of Poisson
    assert rates.loc[0.1, ["revival_low", "revival_high"]].tolist() == pytest.approx([0, bound])
    test = logrank(kept, "optim.lr").iloc[0]
    assert test["pairs"] == 4
    assert test["note"] == ""


def test_runs_with_other_censuses_keep_their_latest_share(tmp_path: Path) -> None:
    often, seldom = [0, 10, 20, 30, 40], [0, 20]
    stories = [["active", "active", "dead", "dead", "dead"], ["active"] * 5]
    write_run(tmp_path, "often", {"optim": {"lr": 0.1}, "seed": 0}, stories, often)
    write_run(tmp_path, "seldom", {"optim": {"lr": 0.1}, "seed": 1}, [["dead", "dead"]] * 2, seldom)
    write_run(tmp_path, "fast", {"optim": {"lr": 1.0}, "seed": 0}, stories, often)
    found = dead_over_time(open_runs(tmp_path), "optim.lr")
    slow = found[found["optim.lr"] == 0.1]
    assert slow["step"].tolist() == often
    assert slow["dead"].tolist() == [0.5, 0.5, 0.75, 0.5, 0.5]
    assert slow["runs"].tolist() == slow["seeds"].tolist() == [2, 2, 2, 1, 1]


def test_errors(tmp_path: Path) -> None:
    sweep(tmp_path)
    kept = lives(open_runs(tmp_path))
    with pytest.raises(ValueError, match=r"no column 'optim.lrr'; what varies: optim.lr"):
        survival(kept, "optim.lrr")
    with pytest.raises(ValueError, match="baseline or all"):
        logrank(kept, "optim.lr", pairs="some")
    with pytest.raises(ValueError, match=r"levels 0.1, 1, but got 7"):
        logrank(kept, "optim.lr", baseline=7)
    with pytest.raises(ValueError, match="at least one factor"):
        logrank(kept, [])


def test_nothing_recorded(tmp_path: Path) -> None:
    write_run(tmp_path, "a", {"optim": {"lr": 1}, "seed": 0}, [["active"]], [])
    write_run(tmp_path, "b", {"optim": {"lr": 2}, "seed": 0}, [["active"]], [])
    kept = lives(open_runs(tmp_path))
    assert survival(kept, "optim.lr").empty
    assert dead_over_time(kept).empty
    assert logrank(kept, "optim.lr")["p"].isna().all()
    assert len(outcomes(open_runs(tmp_path))) == 2


def test_the_product_limit_of_no_deaths() -> None:
    assert kaplan_meier(np.zeros(4), np.array([3, 2, 0, 0])).tolist() == [1, 1, 1, 1]


def test_lives_of_a_mask_are_those_of_its_row_numbers(tmp_path: Path) -> None:
    """A mask once chose the runs 0 and 1, whatever it said."""
    for seed in range(4):
        stories = [story(20 * (seed + 1), 11, STEPS) for _ in range(3)]
        write_run(tmp_path, f"s{seed}", {"seed": seed}, stories, STEPS)
    whole = lives(open_runs(tmp_path))
    mask = whole.outcomes["seed"] >= 2
    chosen = whole.of(mask)
    assert chosen.outcomes["seed"].tolist() == [2, 3]
    for rows in (mask.to_numpy(), mask.tolist(), np.array([2, 3]), [2, 3]):
        again = whole.of(rows)
        pd.testing.assert_frame_equal(again.counts, chosen.counts)
        pd.testing.assert_frame_equal(again.outcomes, chosen.outcomes)
    assert chosen.counts["place"].unique().tolist() == [0, 1]
    first = survival(chosen).query("died > 0")["step"].iloc[0]
    assert first == 60, "of the runs 2 and 3, not of the runs 0 and 1"
    assert whole.of([3, 0]).outcomes["seed"].tolist() == [3, 0]
    back = whole.of([3, 0]).counts
    assert back.loc[back["died"] > 0, ["place", "step"]].values.tolist() == [[1, 20], [0, 80]]


@pytest.mark.parametrize("rows", [[True], [0.5], ["a"], [4], [-1], [1, 1], 2, [[0, 1]]])
def test_what_is_neither_mask_nor_row_numbers_is_refused(rows: Any, tmp_path: Path) -> None:
    for seed in range(4):
        write_run(tmp_path, f"s{seed}", {"seed": seed}, [story(None, 11, STEPS)], STEPS)
    with pytest.raises(ValueError, match="of: expected a mask of 4 booleans or row numbers below 4"):
        lives(open_runs(tmp_path)).of(rows)
