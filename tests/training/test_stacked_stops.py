"""Cohorts that are interrupted, and members that diverge."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from side_by_side import assert_same, made, one_by_one, tables, together

from harness.config import run_folder
from harness.store.folder import RunFolder
from harness.store.writer import TableWriter
from harness.training.stacked import cohort, train_cohort

MEMBERS = [
    ["activation=prelu", "seed=1"],
    ["data.label_noise=0.2", "bias.offset=-1"],
    ["activation=elu", "optim.lr=0.003"],
]
SHARED = [
    "train.epochs=3",
    "model.norm=batch",
    "optim=adamw",
    "record.early=true",
    "schedule=cosine",
    "data.reshuffle_labels_every=1",
    "data.permute_inputs_every=2",
    "train.checkpoint_seconds=0",
]
EXPLODING = ["optim.lr=1e30"]


class Stop(Exception):
    pass


@pytest.mark.parametrize("stop", [1, 7, 13])
def test_a_continued_cohort_equals_an_uninterrupted_one(
    stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, torn = made(tmp_path / "whole", MEMBERS, SHARED), made(tmp_path / "torn", MEMBERS, SHARED)
    endings = together(whole, tmp_path / "keep whole")
    honest = cohort._Cohort._one_step

    def dying(self: cohort._Cohort) -> None:
        if self.step == stop:
            self.writer.step(stop + 1, torch.ones(3), torch.ones(3))
            self.writer.flush()  # rows behind the checkpoint, to be cut off
            raise Stop
        honest(self)

    monkeypatch.setattr(cohort._Cohort, "_one_step", dying)
    with pytest.raises(Stop):
        together(torn, tmp_path / "keep")
    monkeypatch.setattr(cohort._Cohort, "_one_step", honest)
    ticks: list[int] = []
    assert train_cohort(torn, folders(torn), tmp_path / "keep", ticks.append) == endings
    assert ticks == list(range(stop + 1, endings[0].steps + 1))
    assert (
        train_cohort(torn, folders(torn), tmp_path / "keep", ticks.append) == endings
    )  # nothing is left to do
    assert ticks[-1] == len(ticks) + stop
    for one, two in zip(whole, torn, strict=True):
        assert_same(one, two)


def test_an_interrupt_waits_for_the_step_and_leaves_a_checkpoint(tmp_path: Path) -> None:
    import os
    import signal

    shared = [*SHARED[:-1], "train.checkpoint_seconds=1000"]
    whole, torn = made(tmp_path / "whole", MEMBERS, shared), made(tmp_path / "torn", MEMBERS, shared)
    endings = together(whole, tmp_path / "keep whole")

    def tick(step: int) -> None:
        if step == 9:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train_cohort(torn, folders(torn), tmp_path / "keep", tick)
    assert [p.name for p in (tmp_path / "keep").iterdir()] == ["cohort.pt"]
    assert tables(torn[0])["steps"]["step"].tolist() == list(range(1, 10))
    assert together(torn, tmp_path / "keep") == endings
    for one, two in zip(whole, torn, strict=True):
        assert_same(one, two)


def test_killed_while_the_tables_were_being_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = [*MEMBERS, EXPLODING]
    whole, torn = made(tmp_path / "whole", members, SHARED), made(tmp_path / "torn", members, SHARED)
    endings = together(whole, tmp_path / "keep whole")
    honest, left = TableWriter.finish, iter(range(5))

    def dying(self: TableWriter) -> None:
        if next(left, None) is None:
            raise Stop
        honest(self)

    monkeypatch.setattr(TableWriter, "finish", dying)
    with pytest.raises(Stop):
        together(torn, tmp_path / "keep")
    monkeypatch.setattr(TableWriter, "finish", honest)
    assert together(torn, tmp_path / "keep") == endings
    for one, two in zip(whole, torn, strict=True):
        assert_same(one, two)


def test_a_checkpoint_of_other_members_or_without_tables_is_not_continued(
    tmp_path: Path,
) -> None:
    first = made(tmp_path / "first", MEMBERS, SHARED)
    together(first, tmp_path / "keep")
    other = made(tmp_path / "other", [["seed=8"], ["seed=9"]], SHARED)
    assert together(other, tmp_path / "keep")[0].steps == 18
    assert len(tables(other[0])["steps"]) == 18
    RunFolder(run_folder(other[1])).clear()
    again = together(other, tmp_path / "keep")
    assert [len(tables(spec)["steps"]) for spec in other] == [ending.steps for ending in again] == [18, 18]


@pytest.mark.parametrize("norm", ["none", "layer"])
def test_who_diverges_leaves_the_others_alone(norm: str, tmp_path: Path) -> None:
    """The others are, to the last bit, those of a cohort in which nobody diverges."""
    shared = ["optim=sgd", f"model.norm={norm}", "record.early=true", "train.epochs=3"]
    sound = [[f"seed={k}", f"activation={('relu', 'elu')[k % 2]}"] for k in range(4)]
    late = [
        "optim.lr=1e-3",
        "schedule=step",
        "schedule.every=1",
        "schedule.gamma=10",
        "activation=leaky_relu",
    ]
    members = [EXPLODING, *sound[:2], [*EXPLODING, "seed=5"], *sound[2:], late]
    alone, mixed = made(tmp_path / "alone", sound, shared), made(tmp_path / "mixed", members, shared)
    single = made(tmp_path / "single", [members[0], members[3], late], shared)
    calm, wild, serial = together(alone, tmp_path / "a"), together(mixed, tmp_path / "b"), one_by_one(single)
    assert [wild[k] for k in (1, 2, 4, 5)] == calm
    assert [wild[k] for k in (0, 3, 6)] == serial
    assert wild[0].diverged_at is not None
    assert wild[6].diverged_at not in (None, wild[0].diverged_at)
    for one, k in zip(alone, (1, 2, 4, 5), strict=True):
        assert_same(one, mixed[k])
    for one, k in zip(single, (0, 3, 6), strict=True):
        a, b = tables(one), tables(mixed[k])
        assert a["events"].equals(b["events"])
        assert a["steps"]["step"].equals(b["steps"]["step"])
        assert a["steps"]["test_loss"].isna().equals(b["steps"]["test_loss"].isna())
        assert a["census"][["evidence", "step", "site", "unit"]].equals(
            b["census"][["evidence", "step", "site", "unit"]]
        )
        assert not (run_folder(mixed[k]) / "checkpoint.pt").exists()


def test_a_parameter_that_overflows_ends_the_run_at_the_census(tmp_path: Path) -> None:
    members = [["optim.lr=1e36", "optim.weight_decay=1e36"], ["optim.lr=0.01"]]
    shared = ["optim=sgd", "record.census_every=1", "train.max_steps=4"]
    alone, stacked = made(tmp_path / "alone", members, shared), made(tmp_path / "stacked", members, shared)
    endings = together(stacked, tmp_path / "keep")
    assert endings == one_by_one(alone)
    assert endings[0].steps == endings[0].diverged_at == 1
    assert tables(alone[0])["events"].equals(tables(stacked[0])["events"])
    assert len(tables(stacked[0])["steps"]) == 1


def test_all_diverge(tmp_path: Path) -> None:
    specs = made(tmp_path, [EXPLODING, [*EXPLODING, "seed=1"]], ["optim=sgd", "record.early=true"])
    endings = together(specs, tmp_path / "keep")
    assert all(ending.diverged_at is not None for ending in endings)
    for spec, ending in zip(specs, endings, strict=True):
        steps = tables(spec)["steps"]
        assert len(steps) == ending.diverged_at
        assert ending.steps < len(steps) or math.isfinite(steps["loss"].iloc[-1])
        assert tables(spec)["events"]["kind"].tolist()[-1] == "diverged"


def folders(specs: list) -> list[RunFolder]:
    return [RunFolder(run_folder(spec)) for spec in specs]
