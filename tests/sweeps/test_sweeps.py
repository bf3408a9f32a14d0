"""Sweeps: what is planned, who trains it, what is left when something dies."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from command_line import SWEPT, TINY, run
from filelock import FileLock

from harness import open_runs
from harness.config import plan
from harness.sweeps import cohort_job, pool
from harness.sweeps.cohorts import Task, divide
from harness.sweeps.job import JobResult
from harness.sweeps.manifest import manifests
from harness.sweeps.status import status_of, write_heartbeat
from harness.sweeps.sweep import plan_sweep, run_sweep


def tables(folder: Path) -> dict[str, pd.DataFrame]:
    runs = open_runs(folder)
    timeless = runs.table.drop(columns=["path", "output"])
    return {"table": timeless, "census": runs.census, "steps": runs.steps, "events": runs.events}


def assert_equal(a: Path, b: Path, *, tolerance: float = 0.0) -> None:
    for name, (left, right) in {k: (v, tables(b)[k]) for k, v in tables(a).items()}.items():
        pd.testing.assert_frame_equal(left, right, rtol=tolerance, atol=tolerance, obj=name)


def script(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "harness", *argv], capture_output=True, text=True)


def test_what_cannot_be_run_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """The check is carried out by a process of the fork server; its refusal is told as any other."""
    done = script("-m", *SWEPT, "data.subset=99999", f"output={tmp_path / 'out'}")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [
        "harness: data.subset: expected at most 1437, the training inputs there are, but got 99999."
    ]
    assert not (tmp_path / "out").exists()


def test_a_sweep_of_the_script_is_that_of_the_api(tmp_path: Path) -> None:
    swept = [word for word in SWEPT if "tensorboard" not in word]
    done = script("-m", *swept, f"output={tmp_path / 'script'}")
    assert done.returncode == 0, done.stderr
    assert run("-m", *swept, f"output={tmp_path / 'api'}") == 0
    assert_equal(tmp_path / "script", tmp_path / "api")
    assert list((tmp_path / "script").glob("events.out.tfevents.*"))


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("wait", [0.0, 2.0])
def test_an_interrupted_script_says_one_line_and_leaves_no_process(wait: float, tmp_path: Path) -> None:
    """A terminal sends SIGINT to the whole group: to the fork server, too, while it still imports."""
    command = [sys.executable, "-m", "harness", "-m", *SWEPT, "train.max_steps=null", "train.epochs=100000"]
    process = subprocess.Popen(
        [*command, f"output={tmp_path}"],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # background jobs ignore it
    )
    try:
        assert process.stdout is not None
        assert "6 to train" in process.stdout.readline()
        time.sleep(wait)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130
        assert said.splitlines()[-1] == "harness: interrupted; the same command continues."
        assert "Traceback" not in said
        until = time.monotonic() + 30
        while group_lives(process.pid):  # the fork server ends once it has imported, and sees it is alone
            assert time.monotonic() < until, "a process was left behind"
            time.sleep(0.1)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_stacked_and_one_by_one_leave_the_same(tmp_path: Path) -> None:
    swept = [*SWEPT, "bias.offset=0,-1", "activation=relu,leaky_relu", "dtype=float64"]
    assert run("-m", *swept, f"output={tmp_path / 'a'}") == 0
    assert run("-m", *swept, f"output={tmp_path / 'b'}", "hydra.launcher.stack=false") == 0
    assert_equal(tmp_path / "a", tmp_path / "b", tolerance=1e-8)
    for folder in (tmp_path / "a").iterdir():
        if not folder.name.startswith("."):
            other = tmp_path / "b" / folder.name
            assert {f.name for f in folder.iterdir()} == {f.name for f in other.iterdir()}
            same = set(json.loads((folder / "status.json").read_text())) - {"cohort"}
            assert same == set(json.loads((other / "status.json").read_text()))


def test_equal_jobs_train_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-m", *TINY, "seed=1,1,2", "optim.lr=0.1,0.10", f"output={tmp_path}") == 0
    assert "2 run(s)" in capsys.readouterr().out
    assert len(open_runs(tmp_path)) == 2


def test_a_finished_sweep_trains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("-m", *SWEPT, f"output={tmp_path}") == 0
    before = tables(tmp_path)["table"]

    def never(*_: Any) -> None:
        raise AssertionError("a run was trained again")

    monkeypatch.setattr(pool, "_Worker", never)
    assert run("-m", *SWEPT, f"output={tmp_path}") == 0
    pd.testing.assert_frame_equal(before, tables(tmp_path)["table"])


def test_a_result_that_was_there_and_is_gone_is_trained(tmp_path: Path) -> None:
    """The division is kept, but not where it leaves a run without a result to nobody."""
    assert run(*TINY, "seed=0", f"output={tmp_path}") == 0
    assert run("-m", *TINY, "seed=range(3)", f"output={tmp_path}") == 0
    shutil.rmtree(next(tmp_path.glob("*-s0-*")))
    assert run("-m", *TINY, "seed=range(3)", f"output={tmp_path}") == 0
    assert set(open_runs(tmp_path).table["status"]) == {"finished"}


def test_a_wider_sweep_trains_only_what_is_new(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-m", *TINY, "seed=range(3)", f"output={tmp_path}") == 0
    capsys.readouterr()
    assert run("-m", *TINY, "seed=range(5)", f"output={tmp_path}") == 0
    assert "2 to train, 3 with a stored result" in capsys.readouterr().out


def test_a_worker_that_dies_fails_its_runs_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    honest = cohort_job.run_cohort

    def murdered(task: Task, tick: Callable[[int], None] | None = None) -> list[JobResult]:
        if task.specs[0].seed == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return honest(task, tick)

    swept = [*TINY, "seed=range(6)", f"output={tmp_path}", "hydra.launcher.cohort=2"]
    monkeypatch.setattr(cohort_job, "run_cohort", murdered)
    assert run("-m", *swept) == 1
    assert "the worker process was killed (SIGKILL)" in capsys.readouterr().out
    assert sorted(open_runs(tmp_path).table["status"]) == ["failed"] * 2 + ["finished"] * 4
    monkeypatch.setattr(cohort_job, "run_cohort", honest)
    assert run("-m", *swept) == 0
    assert set(open_runs(tmp_path).table["status"]) == {"finished"}


def test_a_stack_that_fails_is_trained_one_by_one_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("out of\nmemory")

    run("-m", *SWEPT, f"output={tmp_path / 'stacked'}")
    monkeypatch.setattr("harness.training.stacked.train_cohort", fails)
    assert run("-m", *SWEPT, f"output={tmp_path / 'alone'}") == 0
    why = "RuntimeError: out of memory"
    assert f"6 run(s) trained alone, since their stack failed: {why}" in capsys.readouterr().out
    assert [r.status["not_stacked"] for r in open_runs(tmp_path / "alone")] == [why] * 6
    assert_equal(tmp_path / "stacked", tmp_path / "alone", tolerance=1e-4)


def test_why_a_stack_could_not_begin_is_stored_with_each_run(tmp_path: Path) -> None:
    torch.save({"other": torch.ones(1)}, tmp_path / "other.pt")
    stored = ["init=stored", f"init.path={tmp_path / 'other.pt'}"]
    assert run("-m", *SWEPT, *stored, f"output={tmp_path / 'runs'}") == 1
    runs = open_runs(tmp_path / "runs")
    assert len(runs) == 6
    for one in runs:
        assert one.status["error"].startswith("init.path: expected weights of this network")
        assert one.status["error"] in (one.path / "error.txt").read_text()


def test_a_second_sweep_is_told_to_wait(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".sweeps").mkdir()
    with FileLock(tmp_path / ".sweeps" / ".lock"):
        assert run("-m", *SWEPT, f"output={tmp_path}") == 2
    assert "another sweep" in capsys.readouterr().err


def test_a_run_in_other_hands_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    specs = plan([*SWEPT, f"output={tmp_path}"], multirun=True)
    folder = cohort_job.run_folder(specs[0])
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock"):
        assert run("-m", *SWEPT, f"output={tmp_path}") == 1
    assert "another process is training" in capsys.readouterr().out
    assert run("-m", *SWEPT, f"output={tmp_path}") == 0


@pytest.mark.parametrize("held", ["sweep", "cohort", "run"])
def test_a_process_that_is_going_down_is_waited_for(tmp_path: Path, held: str) -> None:
    """A killed process holds its locks for a moment; a sweep that is started again at once does not fail."""
    specs = plan([*SWEPT, f"output={tmp_path}"], multirun=True)
    cohort = tmp_path / cohort_job.FOLDER / divide(specs)[0].name
    folder = {"sweep": tmp_path / ".sweeps", "cohort": cohort, "run": cohort_job.run_folder(specs[0])}[held]
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock", thread_local=False) as lock:
        threading.Timer(1.5, lock.release).start()
        assert run("-m", *SWEPT, f"output={tmp_path}") == 0


@pytest.mark.skipif(sys.platform != "linux", reason="process groups and /proc")
def test_a_killed_sweep_continues_to_the_same_tables(tmp_path: Path) -> None:
    """SIGKILL of parent and workers at random moments; what an uninterrupted sweep leaves is left."""
    swept = ["model.width=8", "model.depth=1", "train.epochs=12", "train.checkpoint_seconds=0.2"]
    swept += ["seed=range(8)", "optim.lr=0.1,1e30", "hydra.launcher.cohort=4"]
    assert run("-m", *swept, f"output={tmp_path / 'whole'}") == 0
    command = [sys.executable, "-m", "harness", "-m", *swept, f"output={tmp_path / 'cut'}"]
    chance, finished = random.Random(0), dict[str, float]()
    for _ in range(3):
        process = subprocess.Popen(
            command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(3 + 3 * chance.random())
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for path in (tmp_path / "cut").glob("*/status.json"):
            if json.loads(path.read_text())["state"] in ("finished", "diverged"):
                written = path.stat().st_mtime
                assert finished.setdefault(str(path), written) == written  # not trained again
    assert run("-m", *swept, f"output={tmp_path / 'cut'}") == 0
    for path, written in finished.items():
        assert Path(path).stat().st_mtime == written
    assert_equal(tmp_path / "whole", tmp_path / "cut")


def test_status(tmp_path: Path) -> None:
    specs = plan([*SWEPT, f"output={tmp_path}"], multirun=True)
    run_sweep(plan_sweep(specs), workers=1)
    found = status_of(tmp_path)
    assert found.states == {"finished": 6}
    assert found.rate is None
    kept = manifests(tmp_path)[0]
    kept["runs"] += ["one-more-00000000"]
    next((tmp_path / ".sweeps").glob("*.json")).write_text(json.dumps(kept))
    write_heartbeat(tmp_path, [{"runs": 2, "step": 5, "total": 10}], 1, 60.0)
    found = status_of(tmp_path)
    assert found.states == {"finished": 6, "waiting": 1}
    assert found.rate is not None
    assert found.rate == pytest.approx(2, rel=0.1)
    with pytest.raises(FileNotFoundError):
        status_of(tmp_path / "nowhere")


def test_runs_whose_names_differ_in_the_hash_alone_are_shown_with_their_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("-m", *TINY, "seed=0,1", "train.batch_size=8,16", f"output={tmp_path}/two") == 0
    shown = capsys.readouterr().out
    assert shown.count("train.batch_size=8 ") == shown.count("train.batch_size=16 ") == 2
    assert "seed=" not in shown  # which the names have
    assert run("-m", *TINY, "seed=0,1", f"output={tmp_path}/one") == 0
    assert " with " not in capsys.readouterr().out
