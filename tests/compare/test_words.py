"""What the sentences of a comparison may say, and what they have to leave unsaid."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from harness.compare import critical, effects, ranking
from harness.compare.summary_text import sentences


def runs(seeds: int, lost: int, status: str = "diverged") -> pd.DataFrame:
    """Two learning rates; at the larger one, where all units die, some seeds have no result."""
    rows = [
        {"run": f"{lr}-{seed}", "seed": seed, "optim.lr": lr, "status": "finished", "dead": dead + seed / 100}
        for lr, dead in ((0.1, 0.1), (10.0, 0.8))
        for seed in range(seeds)
    ]
    frame = pd.DataFrame(rows)
    gone = (frame["optim.lr"] > 1) & (frame["seed"] < lost)
    frame.loc[gone, "status"] = status
    return frame.assign(dead=frame["dead"].where(~gone))


def told(frame: pd.DataFrame) -> str:
    return " ".join(
        sentences(
            frame, effects=effects(frame, "optim.lr", outcomes=["dead"]), ranking=ranking(frame, "dead")
        )
    )


@pytest.mark.parametrize(
    ("seeds", "lost", "headline"),
    [(3, 0, True), (2, 0, False), (8, 0, True), (8, 4, True), (8, 5, False), (4, 2, False), (5, 2, True)],
)
def test_a_headline_needs_three_pairs_and_half_of_the_runs(seeds: int, lost: int, headline: bool) -> None:
    said = told(runs(seeds, lost))
    assert ("points (" in said) == headline
    assert ("No difference in dead share is given" in said) == (not headline)


@pytest.mark.parametrize("status", ["diverged", "failed", "interrupted"])
def test_what_is_missing_is_said_instead(status: str) -> None:
    word = "unfinished" if status == "interrupted" else status
    assert (
        "No difference in dead share is given: "
        f"3 of 8 runs at optim.lr=10 have a result (5 {word})." in told(runs(8, 5, status))
    )
    assert "2 pairs of seeds are left, 3 are needed" in told(runs(4, 2, status))


def test_a_level_that_hardly_any_run_survives_is_left_to_the_tables() -> None:
    """Its difference is the larger one; what is told is the other, and that one is missing."""
    more = runs(8, 0).query("`optim.lr` > 1").assign(**{"optim.lr": 1.0, "dead": lambda f: f["dead"] - 0.5})
    frame = pd.concat([runs(8, 6), more], ignore_index=True)
    said = told(frame)
    assert "optim.lr=1 against 0.1" in said
    assert (
        "1 difference not given "
        "(2 of 8 runs at optim.lr=10 have a result (6 diverged); 2 pairs of seeds are left, 3 are needed)."
    ) in said
    assert "Too few runs have a result at optim.lr=10: not much is known there." in said


def test_no_mean_and_no_ranking_from_a_minority() -> None:
    frame = runs(8, 8)
    frame.loc[frame["seed"] < 6, ["status", "dead"]] = ["diverged", np.nan]
    said = told(frame)
    assert "No mean dead share is given: 2 of 16 runs have one." in said
    assert "What the dead share depends on is not known: 2 of 16 runs have one." in said
    assert "%" not in said


def ladder(seeds: int = 4, *, lost_at: dict[float, int] | None = None, top: float = 0.8) -> pd.DataFrame:
    """Three learning rates; the dead share passes a half between 1 and 10, if `top` is above it."""
    rows = [
        {"run": f"{lr}-{seed}", "seed": seed, "optim.lr": lr, "status": "finished", "dead": dead + seed / 100}
        for lr, dead in ((0.1, 0.1), (1.0, 0.2), (10.0, top))
        for seed in range(seeds)
    ]
    frame = pd.DataFrame(rows)
    for lr, lost in (lost_at or {}).items():
        frame.loc[(frame["optim.lr"] == lr) & (frame["seed"] < lost), ["status", "dead"]] = [
            "diverged",
            np.nan,
        ]
    return frame


def crossed(frame: pd.DataFrame) -> str:
    return " ".join(sentences(frame, critical=critical(frame, "optim.lr"))[1:])


def test_a_critical_value_is_told_from_three_seeds_on_either_side_of_three_values() -> None:
    assert crossed(ladder(3)).startswith("A dead share of 50 % is reached above optim.lr ≈ ")
    assert crossed(ladder(6, lost_at={10.0: 3})).startswith("A dead share of 50 % is reached above optim.lr")


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (ladder(2), "2 seeds at 1 and 2 seeds at 10, 3 are needed"),
        (ladder(8, lost_at={10.0: 5}), "3 of 8 runs at 10 have a result (5 diverged)"),
        (ladder(4, lost_at={1.0: 2}), "2 seeds at 1, 3 are needed"),
        (ladder(4).query("`optim.lr` != 1"), "2 values with an outcome, 3 are needed"),
    ],
)
def test_a_critical_value_that_too_few_runs_stand_for_is_not_told(frame: pd.DataFrame, why: str) -> None:
    found = critical(frame, "optim.lr")
    assert found["critical"].notna().all(), "the table keeps the number"
    assert found["missing"].tolist() == [why]
    assert found.iloc[0]["note"].startswith(f"not known: {why}")
    assert crossed(frame) == f"From which optim.lr on the dead share passes 50 % is not known: {why}."


def test_nowhere_is_said_of_values_at_which_runs_are_left() -> None:
    assert crossed(ladder(top=0.4)) == "A dead share of 50 % is crossed nowhere along optim.lr."
    assert crossed(ladder(top=0.4, lost_at={10.0: 3})) == (
        "A dead share of 50 % is crossed nowhere along optim.lr, as far as runs are left: "
        "too few runs have a result at 10 (1 of 4)."
    )


def test_settings_whose_critical_value_is_not_told_are_counted() -> None:
    two = pd.concat(
        [ladder().assign(depth=1), ladder(lost_at={10.0: 3}).assign(depth=2)], ignore_index=True
    ).assign(run=range(24))
    (said,) = sentences(two, critical=critical(two, "optim.lr", ["depth"]))[1:]
    assert said.endswith("in 1 of 2 settings of the other factors (1 not given: too few runs or values).")
