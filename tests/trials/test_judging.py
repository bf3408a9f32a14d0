"""What wins, on made-up trials: against the run as it was, other seeds, and by the smallest change."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from harness.trials import judging
from harness.trials.judging import AGAIN, UNTOUCHED, judged, recommended

Arm = tuple[list[float], list[float]]  # metric and dead share by seed


def trials(**arms: Arm) -> pd.DataFrame:
    named = {UNTOUCHED: ([0.10, 0.12, 0.11], [0.9, 0.9, 0.8]), AGAIN: ([0.11, 0.10, 0.12], [0.9, 0.8, 0.9])}
    rows = []
    for cure, (metric, dead) in (named | arms).items():
        for k, (m, d) in enumerate(zip(metric, dead, strict=True)):
            seed = k + 3 * (cure == AGAIN)
            rows.append(
                {"cure": cure, "seed": seed, "metric": m, "dead": d, "diverged": m == 0, "seconds": 1.0}
            )
    return pd.DataFrame(rows)


def verdicts(table: pd.DataFrame) -> dict[str, str]:
    return dict(zip(table["cure"], table["verdict"], strict=True))


CHANGES = {"small": 1, "large": 4, "lifts": 4}


def test_a_cure_helps_if_it_wins_on_the_same_seeds_and_on_others() -> None:
    table = judged(trials(small=([0.9, 0.92, 0.91], [0.1, 0.1, 0.0])))
    row = next(row for row in table.to_dict("records") if row["cure"] == "small")
    assert row["verdict"] == judging.HELPS
    assert row["gain"] == pytest.approx(0.8)
    welch = stats.ttest_ind([0.9, 0.92, 0.91], [0.10, 0.12, 0.11, 0.11, 0.10, 0.12], equal_var=False)
    interval = welch.confidence_interval()  # against the unchanged run on all seeds
    assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
    assert table["cure"].iloc[0] == "small"
    lucky = trials(small=([0.9, 0.92, 0.91], [0.9, 0.9, 0.8]))
    lucky.loc[lucky["cure"].eq(AGAIN), "metric"] = [0.9, 0.93, 0.9]  # seeds do as much by themselves
    assert verdicts(judged(lucky))["small"] == judging.SEED


def test_a_gain_on_one_seed_alone_is_no_help() -> None:
    table = judged(trials(small=([0.9, 0.12, 0.11], [0.9, 0.9, 0.8])))
    assert verdicts(table)["small"] == judging.NO_HELP


def test_a_fault_that_strikes_every_seed_differently_does_not_hide_its_cure() -> None:
    erratic = trials(small=([0.947, 0.95, 0.95], [0.9, 0.9, 0.8]))
    unchanged = erratic["cure"].isin((UNTOUCHED, AGAIN))
    for spared, ruined in ((0.9, 0.1), (0.5, 0.2)):
        erratic.loc[unchanged, "metric"] = [spared, ruined, spared, spared, ruined, spared]
        row = judged(erratic).set_index("cure").loc["small"].to_dict()
        assert row["verdict"] == judging.HELPS
        assert 0 < row["low"] < row["gain"] < row["high"]
    erratic.loc[unchanged, "metric"] = [0.9, 0.1, 0.9, 0.96, 0.1, 0.9]  # one seed does better by itself
    assert verdicts(judged(erratic))["small"] == judging.SEED


def test_a_gain_that_one_seed_lacks_is_no_help() -> None:
    table = judged(trials(small=([0.1198] * 3, [0.9, 0.9, 0.8])))  # below the unchanged run on one
    assert verdicts(table)["small"] == judging.NO_HELP


def test_one_seed_proves_nothing() -> None:
    row = judged(trials(cure=([0.99], [0.0])).query("seed == 0")).set_index("cure").loc["cure"]
    assert (row["seeds"], row["verdict"]) == (1, judging.BEHIND)
    assert np.isnan(row.to_dict()["low"])


def test_units_that_live_without_a_better_metric_are_named_as_such() -> None:
    table = judged(trials(lifts=([0.10, 0.12, 0.12], [0.0, 0.1, 0.0])))
    assert verdicts(table)["lifts"] == judging.REVIVES
    order = ["lifts"]
    assert recommended(table, CHANGES, order, learned=False) == ""  # nothing is learned with or without
    assert recommended(table, CHANGES, order, learned=True) == "lifts"


def test_what_diverges_is_no_cure_and_what_costs_the_metric_harms() -> None:
    table = judged(trials(small=([0.9, 0.9, 0.0], [0.0, 0.0, 1.0]), large=([0.05, 0.07, 0.06], [0.0] * 3)))
    assert verdicts(table) | {UNTOUCHED: "", AGAIN: ""} == {
        "small": judging.DIVERGES,
        "large": judging.HARMS,
        UNTOUCHED: "",
        AGAIN: "",
    }
    assert recommended(table, CHANGES, ["small", "large"], learned=True) == ""


def test_the_smallest_change_near_the_best_is_recommended() -> None:
    best, near, far = [0.95, 0.96, 0.95], [0.945, 0.955, 0.947], [0.8, 0.81, 0.8]
    alive, dead = [0.0, 0.0, 0.0], [0.5, 0.5, 0.5]
    order = ["large", "small"]
    table = judged(trials(large=(best, alive), small=(near, [0.08] * 3)))
    assert recommended(table, CHANGES, order, learned=True) == "small"
    table = judged(trials(large=(best, alive), small=(far, alive)))
    assert recommended(table, CHANGES, order, learned=True) == "large"
    table = judged(trials(large=(best, alive), small=(near, dead)))  # as good, with half of its units dead
    assert recommended(table, CHANGES, order, learned=True) == "large"


def test_of_equal_changes_the_likelier_is_recommended() -> None:
    good = ([0.95, 0.96, 0.95], [0.0, 0.0, 0.0])
    table = judged(trials(small=good, other=good))
    order, changes = ["other", "small"], {"small": 1, "other": 1}
    assert recommended(table, changes, order, learned=True) == "other"
    table = judged(trials(small=good, other=(good[0], [0.08] * 3)))  # it leaves clearly more units dead
    assert recommended(table, changes, order, learned=True) == "small"


def test_where_nothing_helps_for_sure_the_smallest_change_that_revives_is_taken() -> None:
    revives = {"large": ([0.13, 0.11, 0.12], [0.0] * 3), "small": ([0.11, 0.12, 0.10], [0.04] * 3)}
    table = judged(trials(**revives))
    assert set(verdicts(table).values()) == {judging.REVIVES, ""}
    assert recommended(table, CHANGES, ["large", "small"], learned=True) == "small"
