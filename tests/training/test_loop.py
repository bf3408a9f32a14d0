"""Training: reproducible, continued without a trace, whatever stops it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from harness.config import RunSpec, compose, run_folder
from harness.detector.lifetimes import lifetimes
from harness.recording.schedule import due
from harness.store.folder import read_status
from harness.store.runs import Run
from harness.sweeps.job import run_job
from harness.training import loop

SMALL = ["model.width=16", "model.depth=2", "train.epochs=3", "train.checkpoint_seconds=0"]
KINDS = [
    ["optim=adam"],
    ["optim=momentum", "model.norm=batch", "data.reshuffle_labels_every=1", "schedule=cosine"],
    ["optim=adamw", "data.augment=true", "data.label_noise=0.2", "record=full"],
    ["model=cnn", "model.channels=4", "data.subset=200", "dtype=bfloat16", "data.permute_inputs_every=1"],
]


def spec(out: Path, *overrides: str) -> RunSpec:
    base = SMALL if not any(o.startswith("model=") for o in overrides) else SMALL[2:]
    return compose([f"output={out}", "record.tensorboard=false", *overrides, *base])


def result(made: RunSpec) -> tuple[Run, dict[str, torch.Tensor]]:
    run = Run(run_folder(made))
    return run, torch.load(run.path / "checkpoint.pt", weights_only=True)["model"]


def assert_same(one: RunSpec, two: RunSpec) -> None:
    (a, p), (b, q) = result(one), result(two)
    for name in ("steps", "census", "events"):
        pd.testing.assert_frame_equal(getattr(a, name), getattr(b, name), check_exact=True)
    assert p.keys() == q.keys()
    assert all(torch.equal(p[name], q[name]) for name in p)
    assert a.status["final"] == b.status["final"]
    assert a.status["verdict"] == b.status["verdict"]


def test_the_same_seed_gives_the_same_result_to_the_last_bit(tmp_path: Path) -> None:
    one, two, other = (spec(tmp_path / k, f"seed={s}") for k, s in (("a", 4), ("b", 4), ("c", 5)))
    torch.manual_seed(0)
    run_job(one)
    torch.manual_seed(99)  # the caller's random state plays no part, and comes back
    before = torch.get_rng_state()
    run_job(two)
    assert torch.equal(torch.get_rng_state(), before)
    assert_same(one, two)
    run_job(other)
    assert not Run(run_folder(other)).steps["loss"].equals(Run(run_folder(one)).steps["loss"])


@pytest.mark.parametrize("kind", KINDS, ids=[k[0] for k in KINDS])
def test_an_interrupted_run_continues_as_if_nothing_had_been(
    kind: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, torn = spec(tmp_path / "whole", *kind), spec(tmp_path / "torn", *kind)
    run_job(whole)
    honest = loop._Run._one_step
    stops = iter((2, 4, 7))
    for expected, error in (("interrupted", KeyboardInterrupt), ("failed", OSError), ("failed", MemoryError)):
        stop = next(stops)

        def dying(self: loop._Run, stop: int = stop, error: type[BaseException] = error) -> bool:
            if self.step >= stop:
                raise error
            return honest(self)

        monkeypatch.setattr(loop._Run, "_one_step", dying)
        try:
            assert run_job(torn).state == expected
        except KeyboardInterrupt:
            assert (read_status(run_folder(torn)) or {})["state"] == "interrupted"
    monkeypatch.setattr(loop._Run, "_one_step", honest)
    assert run_job(torn).state == "finished"
    assert_same(whole, torn)


def test_a_killed_process_leaves_a_run_that_continues(tmp_path: Path) -> None:
    overrides = ["train.epochs=30", "record.census_every=20", "train.checkpoint_seconds=0.01"]
    whole, torn = spec(tmp_path / "whole", *overrides), spec(tmp_path / "torn", *overrides)
    command = [sys.executable, "-m", "harness", f"output={tmp_path / 'torn'}", "record.tensorboard=false"]
    process = subprocess.Popen([*command, *overrides, *SMALL], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (run_folder(torn) / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    state = (read_status(run_folder(torn)) or {})["state"]
    assert state in ("running", "finished")
    run_job(torn)
    run_job(whole)
    assert_same(whole, torn)


def test_two_processes_do_not_train_one_run(tmp_path: Path) -> None:
    from filelock import FileLock

    from harness.config import ConfigError

    made = spec(tmp_path)
    run_folder(made).mkdir(parents=True)
    with FileLock(run_folder(made) / ".lock"), pytest.raises(ConfigError, match="another process"):
        run_job(made)


def test_the_tables_tell_the_whole_story(tmp_path: Path) -> None:
    made = spec(tmp_path, "bias.offset=-0.6", "record.census_every=20", "optim.lr=0.5")
    run_job(made)
    run = Run(run_folder(made))
    steps, census = run.steps, run.census
    assert steps["step"].tolist() == list(range(1, len(steps) + 1))
    assert steps["test_accuracy"].notna().sum() == 3
    expected = [0, *(s for s in range(1, len(steps) + 1) if due(s, 20, early=True) or s == len(steps))]
    assert census[census["evidence"] == "probe"]["step"].unique().tolist() == expected
    stream = census[census["evidence"] == "stream"]
    assert stream.groupby("step")["n"].max().sum() == 32 * len(steps)  # every input of every step once
    lives = lifetimes(census)
    died = run.events[run.events["kind"] == "died"]["units"].sum()
    assert died == lives["deaths"].sum()
    assert run.status["final"]["born_dead"] == lives["born_dead"].sum()


def test_recording_does_not_disturb_training(tmp_path: Path) -> None:
    watched, bare = spec(tmp_path / "w"), spec(tmp_path / "b", "record=off")
    for made in (watched, bare):
        run_job(made)
    p, q = result(watched)[1], result(bare)[1]
    assert all(torch.equal(p[name], q[name]) for name in p)


@pytest.mark.parametrize("model", ["mlp", "cnn", "vgg", "resnet", "rnn", "transformer"])
def test_every_network_trains(model: str, tmp_path: Path) -> None:
    sizes = {"cnn": ["model.channels=4"], "vgg": ["model.channels=4"], "rnn": ["model.width=16"]}.get(
        model, []
    )
    made = compose(
        [f"output={tmp_path}", f"model={model}", *sizes, "train.max_steps=5", "data.subset=300", "optim=adam"]
    )
    run_job(made)
    run = Run(run_folder(made))
    assert run.status["state"] == "finished"
    assert len(run.steps) == 5
    assert (run.census["state"] != "unobserved").all()
