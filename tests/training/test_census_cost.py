"""What censuses cost is told, and a run can be given a limit that depends on nothing but its sizes."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from harness import console
from harness.cli import run
from harness.config import compose
from harness.config.identity import run_id
from harness.recording.schedule import census_steps, due
from harness.store.runs import Run, open_runs

SMALL = ("model.width=8", "model.depth=2", "train.max_steps=120", "record.tensorboard=false")


def trained(root: Path, *words: str) -> list[Run]:
    assert run([*SMALL, *words, f"output={root}"]) == 0
    return list(open_runs(root))


@pytest.mark.parametrize("every", [1, 7, 50, 1000])
@pytest.mark.parametrize("total", [1, 30, 444])
@pytest.mark.parametrize("early", [True, False])
def test_without_a_limit_every_due_census_is_taken(every: int, total: int, early: bool) -> None:
    expected = {step for step in range(1, total + 1) if due(step, every, early=early)} | {total}
    assert census_steps(total, every, early=early) == expected


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize(("total", "probe", "batch"), [(60, 2000, 128), (880, 360, 32), (5000, 2000, 64)])
def test_the_limit_is_kept_and_the_last_census_is_taken(
    share: float, total: int, probe: int, batch: int
) -> None:
    whole = census_steps(total, 10, early=True)
    steps = census_steps(total, 10, early=True, share=share, probe=probe, batch=batch)
    assert steps <= whole
    assert total in steps
    forwards = len(steps) * probe
    assert len(steps) == 1 or forwards <= share * total * 3 * batch
    assert len(steps) == len(whole) or forwards + probe > share * total * 3 * batch


@pytest.mark.parametrize("total", [1, 60, 469, 5000])
@pytest.mark.parametrize(("probe", "batch"), [(2000, 128), (2000, 32), (360, 32)])
def test_by_default_the_probe_costs_a_tenth_or_is_small(total: int, probe: int, batch: int) -> None:
    steps = census_steps(total, None, early=True, probe=probe, batch=batch)
    assert steps <= census_steps(total, 50, early=True)
    assert total in steps
    assert len(steps) == 1 or len(steps) * probe <= max(0.1 * total * 3 * batch, 3600)
    assert census_steps(total, None, early=True) == census_steps(total, 50, early=True), "no probe, no cost"


def test_the_default_is_this_limit_and_a_given_number_is_none() -> None:
    assert compose([]).record.census_every is None
    for words in (["record.census_every=50"], ["record=full"], ["record=light"]):
        record = compose(words).record
        assert record.census_every is not None
        assert record.census_share is None


def test_a_limit_is_part_of_a_runs_identity_and_none_is_what_runs_were_before() -> None:
    plain = compose([])
    assert plain.record.census_share is None
    assert run_id(plain) == run_id(compose(["record.census_share=null"]))
    assert run_id(plain) != run_id(compose(["record.census_share=0.1"]))


def test_a_limited_run_is_the_same_alone_and_in_a_stack(tmp_path: Path) -> None:
    (alone,) = trained(tmp_path / "alone", "record.census_share=0.05", "seed=1")
    stack = trained(tmp_path / "stack", "-m", "record.census_share=0.05", "seed=0,1")
    member = next(one for one in stack if one.config["seed"] == 1)
    steps = sorted(alone.census["step"].unique())
    assert steps == sorted(member.census["step"].unique())
    assert len(steps) < 6
    columns = ["evidence", "step", "site", "unit", "n", "active", "state"]
    pd.testing.assert_frame_equal(alone.census[columns], member.census[columns])


def test_the_training_itself_does_not_depend_on_the_limit(tmp_path: Path) -> None:
    runs = [*trained(tmp_path / "a"), *trained(tmp_path / "b", "record.census_share=0.02")]
    assert runs[0].steps.equals(runs[1].steps)
    ends = [one.census.query("step == 120 and evidence == 'probe'") for one in runs]
    assert ends[0]["active"].tolist() == ends[1]["active"].tolist()
    assert len(ends[0])


def test_what_censuses_cost_is_said_at_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (one,) = trained(tmp_path)
    spent, total = one.status["census_seconds"], one.status["seconds"]
    assert 0 < spent < total
    assert f"censuses    {spent:.1f} s of {total:.1f} s (" in capsys.readouterr().out


def test_a_sweep_says_what_censuses_cost_where_it_is_much(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (
        "-m",
        "record.tensorboard=false",
        "record.census_every=50",
        "seed=0,1",
        "model.width=8",
        "model.depth=1",
        "train.max_steps=40",
    )

    def said(*more: str) -> str:
        assert run([*words, *more, f"output={tmp_path}"]) == 0
        return capsys.readouterr().out

    first = said()
    assert "censuses " not in first, "a few seconds are not worth a word"
    assert f"compare     harness-tools compare {tmp_path}" in first
    monkeypatch.setattr(console, "LONG", 0.0)
    monkeypatch.setattr(console, "DEAR", 0.0)
    assert "censuses " not in said(), "nothing was trained"
    assert "; record.census_share=0.1 takes fewer" in said("force=true")
    assert "censuses " not in said("record.census_share=0.1")
    assert "censuses " not in said("record.census_every=null", "force=true")
