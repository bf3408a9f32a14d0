"""One cohort: what is continued, what is left alone, what fails by itself."""

from __future__ import annotations

import errno
from functools import partial
from pathlib import Path

import pytest
from command_line import TINY
from filelock import FileLock

from harness import open_runs
from harness.config import plan, run_folder
from harness.sweeps import cohort_job
from harness.sweeps.cohorts import divide
from harness.sweeps.job import run_job


class Stop(BaseException):
    """Ends a training at once, as a kill does."""


def raise_at(step: int, error: BaseException, done: int) -> None:
    """A listener of a training that ends it at a step."""
    if done == step:
        raise error


LONG = [*TINY, "train.max_steps=40", "train.checkpoint_seconds=0", "record.census_every=5"]


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("elsewhere", ["alone", "in a cohort"])
def test_a_cohort_that_goes_on_leaves_members_alone_that_finished_elsewhere(
    elsewhere: str, tmp_path: Path
) -> None:
    specs = plan([*LONG, "optim.lr=0.1,0.5", "seed=0,1", f"output={tmp_path}"], multirun=True)
    task = divide(specs)[0]
    with pytest.raises(Stop):
        cohort_job.run_cohort(task, partial(raise_at, 20, Stop()))
    own = [spec for spec in specs if spec.optim.lr == 0.1]
    if elsewhere == "alone":
        for spec in own:
            run_job(spec)
    else:
        assert [o.state for o in cohort_job.run_cohort(divide(own)[0])] == ["finished"] * 2
    before = {run_folder(spec): files(run_folder(spec)) for spec in own}
    with pytest.raises(Stop):
        cohort_job.run_cohort(task, partial(raise_at, 20, Stop()))
    assert [o.state for o in cohort_job.run_cohort(task)] == ["finished"] * 4
    assert {folder: files(folder) for folder in before} == before
    assert open_runs(tmp_path).steps.groupby("run").size().tolist() == [40] * 4


def test_a_full_disk_keeps_how_far_a_cohort_came(tmp_path: Path) -> None:
    specs = plan([*LONG, "seed=range(3)", f"output={tmp_path}"], multirun=True)
    task = divide(specs)[0]
    full = OSError(errno.ENOSPC, "No space left on device")
    outcomes = cohort_job.run_cohort(task, partial(raise_at, 20, full))
    assert [o.state for o in outcomes] == ["failed"] * 3
    assert "No space left" in outcomes[0].error
    steps: list[int] = []
    assert [o.state for o in cohort_job.run_cohort(task, steps.append)] == ["finished"] * 3
    assert steps[0] == 20
    assert not any((tmp_path / cohort_job.FOLDER).iterdir())


def test_what_decides_no_result_may_change_before_a_cohort_goes_on(tmp_path: Path) -> None:
    swept = [*LONG, "seed=range(3)", f"output={tmp_path}"]
    with pytest.raises(Stop):
        cohort_job.run_cohort(divide(plan(swept, multirun=True))[0], partial(raise_at, 20, Stop()))
    again = divide(plan([*swept, "train.checkpoint_seconds=60", "detect.rare=0.2"], multirun=True))[0]
    steps: list[int] = []
    assert [o.state for o in cohort_job.run_cohort(again, steps.append)] == ["finished"] * 3
    assert steps[0] == 20


def test_a_member_that_cannot_be_trained_leaves_the_others(tmp_path: Path) -> None:
    specs = plan([*TINY, "seed=range(5)", f"output={tmp_path}"], multirun=True)
    busy, blocked, odd = (run_folder(spec) for spec in specs[:3])
    blocked.parent.mkdir(parents=True, exist_ok=True)
    blocked.write_text("a file")
    (odd / "status.json").mkdir(parents=True)
    busy.mkdir()
    with FileLock(busy / ".lock"):
        outcomes = cohort_job.run_cohort(divide(specs)[0])
    assert [o.state for o in outcomes] == ["failed"] * 3 + ["finished"] * 2
    assert "another process is training" in outcomes[0].error
    assert all(o.error for o in outcomes[:3])
    assert cohort_job.run_cohort(divide(specs)[0])[0].state == "finished"
