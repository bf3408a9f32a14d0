"""What the sentences of a comparison may say, and what they have to leave unsaid."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from harness.compare import effects, ranking
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
    assert ("No difference in dead share is told" in said) == (not headline)


@pytest.mark.parametrize("status", ["diverged", "failed", "interrupted"])
def test_what_is_missing_is_said_instead(status: str) -> None:
    word = "unfinished" if status == "interrupted" else status
    assert (
        "No difference in dead share is told: "
        f"3 of 8 runs at optim.lr=10 have a result (5 {word})." in told(runs(8, 5, status))
    )
    assert "2 pairs of seeds are left, 3 are needed" in told(runs(4, 2, status))


def test_a_level_that_hardly_any_run_survives_is_left_to_the_tables() -> None:
    """Its difference is the larger one; what is told is the other, and that one is missing."""
    more = runs(8, 0).query("`optim.lr` > 1").assign(**{"optim.lr": 1.0, "dead": lambda f: f["dead"] - 0.5})
    frame = pd.concat([runs(8, 6), more], ignore_index=True)
    said = told(frame)
    assert "optim.lr=1 against 0.1" in said
    assert "1 difference with too few runs left: not told." in said


def test_no_mean_and_no_ranking_from_a_minority() -> None:
    frame = runs(8, 8)
    frame.loc[frame["seed"] < 6, ["status", "dead"]] = ["diverged", np.nan]
    said = told(frame)
    assert "No mean dead share is told: 2 of 16 runs have one." in said
    assert "What the dead share depends on is not told: 2 of 16 runs have one." in said
    assert "%" not in said
