"""One cohort: what is continued, what is left alone, what fails by itself."""

from __future__ import annotations

import errno
import resource
import subprocess
import sys
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


def test_a_cohort_has_no_more_members_than_files_can_be_open(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = plan([*TINY, "seed=range(40)"], multirun=True)
    for hard, sizes in ((64 + 4 * 16, [14, 14, 12]), (64 + 4 * 1000, [40]), (resource.RLIM_INFINITY, [40])):
        monkeypatch.setattr(resource, "getrlimit", lambda _, hard=hard: (32, hard))
        assert [len(task.specs) for task in divide(specs, most=256)] == sizes


def test_a_large_cohort_raises_its_own_limit(tmp_path: Path) -> None:
    program = (
        "import resource, sys\n"
        "from harness.config import plan\n"
        "from harness.sweeps.cohort_job import run_cohort\n"
        "from harness.sweeps.cohorts import divide\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (128, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))\n"
        "(task,) = divide(plan(sys.argv[1:], multirun=True), most=60)\n"
        "print({outcome.state for outcome in run_cohort(task)})\n"
    )
    words = [*TINY, "seed=range(60)", "record.tensorboard=false", f"output={tmp_path}"]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)
    assert done.stdout.strip() == "{'finished'}", done.stderr
