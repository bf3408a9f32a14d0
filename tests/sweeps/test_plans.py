"""Plans: which runs of a sweep are trained together, and how it is shown before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import SWEPT, TINY, run

from harness.config import plan
from harness.sweeps import cohort_job
from harness.sweeps.cohorts import divide, on_gpu, why_not
from harness.sweeps.sweep import plan_sweep, run_sweep


def test_runs_of_one_shape_are_one_cohort() -> None:
    specs = plan(
        [*TINY, "activation=relu,elu", "model.norm=none,batch", "optim=sgd,adam", "seed=1,2"], multirun=True
    )
    tasks = divide(specs)
    assert [len(task.specs) for task in tasks] == [4] * 4
    for task in tasks:
        assert len({(s.optim.name, getattr(s.model, "norm", None)) for s in task.specs}) == 1


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["model=cnn"], "347,392 multiplications per input"),
        (["data=mnist", "model.width=512"], "925,696 multiplications per input"),
        (["dtype=bfloat16"], "autocast"),
        (["model=rnn", "remedy=redo"], "only MLPs are stacked with a remedy"),
        (["remedy=auto"], "evidence"),
    ],
)
def test_what_is_not_stacked_and_why(overrides: list[str], reason: str) -> None:
    assert reason in why_not(plan(overrides, multirun=True)[0])


SMALL_NETWORKS = [["model=rnn"], ["model=cnn", "model.channels=4"], ["data.augment=true"]]


@pytest.mark.parametrize("overrides", SMALL_NETWORKS)
def test_small_networks_of_every_kind_are_stacked(overrides: list[str]) -> None:
    assert why_not(plan(overrides, multirun=True)[0]) == ""


def test_few_runs_of_other_networks_train_singly(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, sizes in {2: [4, 4], 3: [1] * 8}.items():
        monkeypatch.setattr("harness.sweeps.cohorts.cores", lambda many=cores: many)
        tasks = divide(plan(["model=rnn", "seed=range(8)"], multirun=True))
        assert [len(task.specs) for task in tasks] == sizes


def test_on_a_gpu_everything_is_stacked_that_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = plan(["model=cnn,resnet", "data=mnist", "seed=range(300)", "device=cuda"], multirun=True)
    sizes = [len(task.specs) for task in divide(specs)]
    assert sum(sizes) == 600
    assert 30 < max(sizes) <= 1024
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr("harness.sweeps.cohorts.version", lambda name: "2.14.0+cu130")
    assert on_gpu(plan([], multirun=False)[0])
    assert not on_gpu(plan(["device=cpu"], multirun=False)[0])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not on_gpu(plan([], multirun=False)[0])


def test_the_division_does_not_depend_on_what_is_done(tmp_path: Path) -> None:
    """Cohorts are divided once; a continued sweep has the same, whatever is finished by then."""
    specs = plan([*SWEPT, f"output={tmp_path}"], multirun=True)
    sweep = plan_sweep(specs, most=2)
    run_sweep(sweep, workers=1)
    first = sweep.tasks[0]
    for spec in first.specs:
        status = cohort_job.run_folder(spec) / "status.json"
        status.write_text(json.dumps({"state": "failed"}))
    again = plan_sweep(specs, most=2)
    assert [task.name for task in again.tasks] == [first.name]


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-m", *SWEPT, f"output={tmp_path / 'runs'}", "--dry-run", "model.norm=none,batch") == 0
    said = capsys.readouterr().out
    assert "12 run(s)" in said
    assert "2 cohort(s) of 6" in said
    assert not (tmp_path / "runs").exists()


def test_options_of_the_launcher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = f"output={tmp_path / 'runs'}"
    assert run("-m", *SWEPT, out, "--dry-run", "hydra.launcher.stack=false") == 0
    assert "6 one by one: stacking is switched off" in capsys.readouterr().out
    assert run("-m", *SWEPT, out, "--dry-run", "hydra.launcher.cohort=3") == 0
    assert "2 cohort(s) of 3" in capsys.readouterr().out
    for wrong in ("hydra.launcher.workers=0", "hydra.launcher.workers=many", "hydra.launcher.cohorts=3"):
        assert run("-m", *SWEPT, out, wrong) == 2
        assert "harness:" in capsys.readouterr().err
