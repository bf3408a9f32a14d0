"""Dose–response and critical values: what was seen, and nothing more."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_up import frame

from harness.compare import critical, dose_response
from harness.compare.bootstrap import mean_interval

LR = [0.01, 0.1, 1.0, 10.0]


def curve(
    *means: float, noise: float = 0.0, axis: str = "optim.lr", values: Any = LR, seeds: int = 6
) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    of = dict(zip(values, means, strict=True))
    return frame(
        {axis: values}, seeds, lambda s, seed: float(np.clip(of[s[axis]] + noise * rng.normal(), 0, 1))
    )


def one(table: pd.DataFrame) -> dict[Any, Any]:
    (row,) = table.to_dict("records")
    return row


def test_means_and_intervals_per_value() -> None:
    found = curve(0.1, 0.2, 0.7, 0.9, noise=0.05)
    found.loc[found["optim.lr"] == 10.0, ["dead", "status"]] = [np.nan, "diverged"]
    table: Any = dose_response(found, "optim.lr").set_index("optim.lr")
    here = found.loc[found["optim.lr"] == 1.0, "dead"].to_numpy()
    assert table.loc[1.0, "mean"] == pytest.approx(here.mean())
    assert table.loc[1.0, ["low", "high"]].tolist() == pytest.approx(list(mean_interval(here, bounds=(0, 1))))
    assert np.isnan(table.loc[10.0, "mean"])  # never 0
    assert table.loc[10.0, ["runs", "diverged", "seeds"]].tolist() == [6, 6, 0]


def test_the_crossing_is_interpolated_on_a_log_axis() -> None:
    row = one(critical(curve(0.1, 0.2, 0.8, 0.9), "optim.lr"))
    assert row["critical"] == pytest.approx(10**-0.5)
    assert (row["below"], row["above"], row["low"], row["high"]) == (0.1, 1.0, 0.1, 1.0)
    assert row["rising"] is True
    linear = one(critical(curve(0.1, 0.2, 0.8, 0.9), "optim.lr", log=False))
    assert linear["critical"] == pytest.approx(0.55)


def test_a_falling_curve_over_negative_values() -> None:
    row = one(critical(curve(0.9, 0.6, 0.2, axis="bias.offset", values=[-2.0, -1.0, 0.0]), "bias.offset"))
    assert row["critical"] == pytest.approx(-0.75)
    assert row["rising"] is False


@pytest.mark.parametrize(
    ("means", "note"),
    [
        ((0.0, 0.1, 0.2, 0.49), "not reached (highest 49.0 % at 10)"),
        ((0.6, 0.7, 0.8, 0.9), "always above (lowest 60.0 % at 0.01)"),
        ((0.1, 0.55, 0.1, 0.1), "no single crossing: the mean crosses 50 % and comes back"),
    ],
)
def test_no_crossing_is_made_up(means: tuple[float, ...], note: str) -> None:
    row = one(critical(curve(*means), "optim.lr"))
    assert np.isnan([row["critical"], row["low"], row["high"]]).all()
    assert row["note"] == note


def test_the_interval_is_no_finer_than_the_values_and_knows_when_seeds_never_cross() -> None:
    found = curve(0.1, 0.2, 0.6, 0.6)
    late = (found["seed"] < 3) & (found["optim.lr"] >= 1.0)
    found.loc[late, "dead"] = 0.45  # three of six seeds never cross
    row = one(critical(found, "optim.lr"))
    assert 0.1 < row["critical"] < 1.0
    assert row["low"] == 0.1
    assert row["high"] == np.inf
    assert "not reached in" in row["note"]


def test_a_wave_is_told() -> None:
    row = one(critical(curve(0.45, 0.55, 0.46, 0.9), "optim.lr"))
    assert "crosses 50 % 3 times" in row["note"]
    assert 0.01 < row["critical"] < 0.1  # means made monotone: 45, 50.5, 50.5, 90 %


def test_values_that_diverge_are_told_and_not_crossed() -> None:
    found = curve(0.1, 0.2, 0.3, 0.9)
    found.loc[found["optim.lr"] == 10.0, ["dead", "status"]] = [np.nan, "diverged"]
    found.loc[(found["optim.lr"] == 1.0) & (found["seed"] == 0), ["dead", "status"]] = [np.nan, "diverged"]
    row = one(critical(found, "optim.lr"))
    assert np.isnan(row["critical"])
    assert row["note"] == (
        "not reached (highest 30.0 % at 1); no outcome at 10 (6 of 6 diverged); some runs diverged at 1"
    )
    assert row["diverged"] == 7


def test_a_mean_over_fewer_settings_is_told() -> None:
    found = frame(
        {"optim.lr": LR, "bias.offset": [0, -1]}, 3, lambda s, seed: 0.8 if s["bias.offset"] else 0.1
    )
    gone = (found["optim.lr"] == 10.0) & (found["bias.offset"] == 0)
    found.loc[gone, ["dead", "status"]] = [np.nan, "diverged"]
    row = one(critical(found, "optim.lr"))
    assert "at 10 the mean is over fewer settings of the other factors" in row["note"]
    assert dose_response(found, "optim.lr")["averaged"].tolist() == [2, 2, 2, 1]
    apart = critical(found, "optim.lr", by="bias.offset")
    assert apart["setting"].tolist() == ["bias.offset=-1", "bias.offset=0"]
    assert apart["critical"].isna().all()


def test_one_seed() -> None:
    row = one(critical(curve(0.1, 0.2, 0.8, 0.9, seeds=1), "optim.lr"))
    assert row["critical"] == pytest.approx(10**-0.5)
    assert np.isnan(row["low"])
    few = "1 seed at 0.1 and 1 seed at 1, 3 are needed"
    assert row["note"] == f"not known: {few}; one seed: no interval"


def test_a_seed_without_an_outcome_is_none() -> None:
    found = curve(0.1, 0.2, 0.8, 0.9, seeds=3)
    found.loc[found["seed"] == 1, ["dead", "status"]] = [np.nan, "failed"]
    row, same = one(critical(found, "optim.lr")), one(critical(found[found["seed"] != 1], "optim.lr"))
    assert (row["critical"], row["low"], row["high"]) == (same["critical"], same["low"], same["high"])


def test_a_random_search_crosses_where_its_law_does() -> None:
    rng = np.random.default_rng(0)
    lr = 10 ** rng.uniform(-3, 1, 300)
    found = pd.DataFrame({"run": range(300), "status": "finished", "seed": range(300), "optim.lr": lr})
    found["dead"] = np.clip(1 / (1 + 0.2 / lr) + 0.1 * rng.normal(size=300), 0, 1)
    row = one(critical(found, "optim.lr"))
    assert 0.13 < row["critical"] < 0.3
    assert row["low"] < 0.2 < row["high"]


def test_intervals_of_critical_values_cover() -> None:
    """Each seed has a threshold of its own; the mean curve crosses where half of them do."""
    rng = np.random.default_rng(5)
    values = np.round(10 ** np.linspace(-2, 1, 13), 5).tolist()
    trials, covered = 60, 0
    for _ in range(trials):
        threshold = 0.3 * 10 ** (0.4 * rng.normal(size=8))
        found = frame(
            {"optim.lr": values}, 8, lambda s, seed, t=threshold: 1 / (1 + (t[seed] / s["optim.lr"]) ** 4)
        )
        row = one(critical(found, "optim.lr"))
        covered += row["low"] <= 0.3 <= row["high"]
    assert covered / trials >= 0.85


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (
            {"axis": "activation.name"},
            "expected a factor of numbers, but activation.name has the levels elu, relu",
        ),
        ({"axis": "optim.l"}, "axis: there is no column 'optim.l'"),
        ({"axis": "optim.lr", "by": ["optim.lr"]}, "is the axis itself"),
        ({"axis": "optim.lr", "share": 1.0}, r"share: expected a number in \(0, 1\), but got 1.0"),
        ({"axis": "bias.offset", "log": True}, "log: needs values above 0, but bias.offset has -1"),
    ],
)
def test_errors(arguments: dict[str, Any], match: str) -> None:
    levels = {"optim.lr": [0.1, 1.0], "bias.offset": [0, -1], "activation.name": ["relu", "elu"]}
    with pytest.raises(ValueError, match=match):
        critical(frame(levels, 2, lambda s, seed: 0.1), **arguments)


def test_a_diverged_run_without_a_value_on_the_axis_is_nowhere_on_it() -> None:
    found = curve(0.1, 0.2, 0.7, 0.9)
    lost = found.head(1).assign(run="other", status="diverged", dead=np.nan, **{"optim.lr": np.nan})
    both = pd.concat([found, lost], ignore_index=True)
    here, there = (one(critical(table, "optim.lr")) for table in (found, both))
    assert (there["critical"], there["note"]) == (here["critical"], here["note"])
