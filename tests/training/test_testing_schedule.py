"""The test set is passed every so many epochs and after the last step, alone and in a stack."""

from __future__ import annotations

from pathlib import Path

from side_by_side import assert_alike, made, one_by_one, tables, together

from harness.config import compose, run_id


def test_the_test_set_is_passed_when_it_is_due(tmp_path: Path) -> None:
    shared = ["train.epochs=5", "train.test_every=2", "dtype=float64"]
    alone = made(tmp_path / "alone", [["seed=0"], ["seed=1"]], shared)
    stacked = made(tmp_path / "stacked", [["seed=0"], ["seed=1"]], shared)
    one_by_one(alone)
    together(stacked, tmp_path / "cohort")
    for one, two in zip(alone, stacked, strict=True):
        assert_alike(one, two, 1e-8)
        steps = tables(one)["steps"]
        tested = steps["step"][steps["test_accuracy"].notna()]
        epoch = len(steps) // 5
        assert tested.tolist() == [2 * epoch, 4 * epoch, 5 * epoch]


def test_a_run_that_tests_every_epoch_is_the_run_that_it_was() -> None:
    assert run_id(compose(["train.test_every=1"])) == run_id(compose())
    assert run_id(compose(["train.test_every=2"])) != run_id(compose())
