"""`harness-tools threshold` on tiny networks, from the command line to the files."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from harness.config import run_folder
from harness.store.folder import RunFolder
from harness.store.runs import open_runs
from harness.sweeps.job import JobResult
from harness.sweeps.sweep import Sweep, plan_sweep
from harness.sweeps.threshold_search import train
from harness.sweeps.threshold_search.train import SearchRequest, search
from harness.tools import app

TINY = ["model.width=8", "train.max_steps=20", "record.tensorboard=false"]
ASKED = ["--axis", "optim.lr", "--between", "0.01", "10", "--seeds", "2", "--resolution", "3"]


def edge(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["threshold", *words])
    return done.exit_code, " ".join(done.output.replace("│", " ").split())


def test_it_trains_writes_reuses_and_agrees_with_the_stored_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeps: list[Sweep] = []

    def planned(*args: object, **options: object) -> Sweep:
        sweeps.append(plan_sweep(*args, **options))  # type: ignore[arg-type]
        return sweeps[-1]

    monkeypatch.setattr(train, "plan_sweep", planned)
    out = ["--output", str(tmp_path), "activation=relu,leaky_relu", *TINY]
    code, text = edge(*ASKED, *out)
    assert code == 0, text
    later = [task for sweep in sweeps[1:] for task in sweep.tasks if task.stacked]
    assert any(len({spec.optim.lr for spec in task.specs}) > 1 for task in later), "stacked across values"

    table = pd.read_parquet(tmp_path / "edge.parquet")
    kept = json.loads((tmp_path / "edge.json").read_text())
    assert list(table["activation.name"]) == ["relu"] * 2 + ["leaky_relu"] * 2
    assert list(table["seed"]) == [0, 1, 0, 1]
    assert list(table["state"]) == ["dead"] * 2 + ["diverged"] * 2, "leaky units do not die, they explode"
    assert "an edge of divergence in 2 of 2 seeds" in text
    assert "no edge is given: 2 seeds have a result, 3 are needed (found per seed: " in text
    assert {arm["missing"] for arm in kept["arms"]} == {"2 seeds have a result, 3 are needed"}
    assert kept["runs"] == table["tried"].sum() == len(open_runs(tmp_path))
    assert kept["grid_runs"] == 4 * 8
    assert (table["first_above"] / table["last_below"]).max() <= 3.001

    code, again = edge(*ASKED, *out)
    assert code == 0
    assert " 0 of them trained now" in again
    finer = [word if word != "3" else "1.8" for word in ASKED]
    code, _ = edge(*finer, *out)
    assert code == 0
    fine = pd.read_parquet(tmp_path / "edge.parquet")
    assert len(open_runs(tmp_path)) < kept["runs"] + fine["tried"].sum()
    assert (fine["first_above"] / fine["last_below"]).max() <= 1.801

    code, text = edge(str(tmp_path), "--axis", "optim.lr", "--output", str(tmp_path / "stored"))
    assert code == 0, text
    assert "nothing was trained" in text
    stored = pd.read_parquet(tmp_path / "stored" / "edge.parquet")
    both = fine.merge(stored, on=["activation.name", "seed"])
    assert len(both) == 4
    assert both["first_above_x"].tolist() == both["first_above_y"].tolist()
    assert both["value_x"].tolist() == both["value_y"].tolist()


def test_a_share_that_falls_along_the_axis_has_an_edge_too(tmp_path: Path) -> None:
    ask = SearchRequest("bias.offset", -3, 0, TINY, tmp_path, seeds=2, resolution=1, checks=0)
    (arm,) = search(ask).arms
    found = arm.seeds[0]
    assert arm.rising is False
    assert found.state == "dead"
    assert -3 < found.first_above < found.value < found.last_below <= 0
    assert found.tried == 2 + 2


def test_whole_numbers_and_no_crossing(tmp_path: Path) -> None:
    ask = SearchRequest("model.depth", 1, 3, TINY, tmp_path, share=0.99, seeds=2)
    found = search(ask)
    assert {run.config["model"]["depth"] for run in open_runs(tmp_path)} == {1, 2, 3}
    assert found.arms[0].count("below") == 2
    assert found.notes(found.arms[0]) == [
        "no crossing in 2 of 2 seeds: below 99 % wherever tried, 1 and 3 included"
    ]


def write_run(folder: Path, seed: int, lr: float, state: str, dead: float | None) -> None:
    run = RunFolder(folder / f"lr{lr}-s{seed}-{state}")
    run.write_config({"activation": {"name": "relu"}, "optim": {"lr": lr}, "seed": seed})
    run.write_status(state, final={"dead_fraction": dead})


def test_stored_runs_say_what_is_not_monotone_and_what_was_left_out(tmp_path: Path) -> None:
    for seed, shares in enumerate([(0.1, 0.2, 0.8), (0.1, 0.7, 0.3)]):
        for lr, dead in zip((0.1, 1.0, 10.0), shares, strict=True):
            write_run(tmp_path, seed, lr, "finished", dead)
    write_run(tmp_path, 2, 1.0, "failed", None)
    write_run(tmp_path, 3, 1.0, "finished", None)
    code, text = edge(str(tmp_path), "--axis", "optim.lr")
    assert code == 0, text
    assert "activation=relu: not monotone in 1 of 2 seeds" in text
    assert "Left out: 1 run(s) not complete (failed)." in text
    assert "Left out: 1 run(s) without a dead share." in text
    table = pd.read_parquet(tmp_path / "edge.parquet").set_index("seed")
    assert table["last_below"].tolist() == [1.0, 0.1]
    assert table["value"].tolist() == pytest.approx([10**0.5, 10 ** (-1 / 3)])
    assert table["monotone"].tolist() == [True, False]
    assert json.loads((tmp_path / "edge.json").read_text())["grid_runs"] is None

    (tmp_path / "one").mkdir()
    write_run(tmp_path / "one", 0, 1.0, "finished", 0.5)
    code, text = edge(str(tmp_path / "one"), "--axis", "optim.lr")
    assert (code, "an edge needs two" in text) == (2, True)
    code, text = edge(str(tmp_path / "one"), "--axis", "optim.lrr")
    assert (code, "Did you mean optim.lr?" in text) == (2, True)


def test_runs_that_fail_are_a_state_and_an_exit_code_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(sweep: Sweep, workers: int | None, tell: object) -> None:
        for name, spec in sweep.specs.items():
            sweep.outcomes[name] = JobResult(run_folder(spec), "failed", error="the disk is on fire")

    monkeypatch.setattr(train, "run_sweep", broken)
    code, text = edge(*ASKED, "--output", str(tmp_path), *TINY)
    assert code == 1
    assert "no result in 2 of 2 seeds" in text
    assert text.count("the disk is on fire") == 4
    assert set(pd.read_parquet(tmp_path / "edge.parquet")["state"]) == {"unobserved"}


BETWEEN = ["--axis", "optim.lr", "--between", "0.1", "1"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--axis", "optim.lrr", "--between", "1", "2"], "Did you mean optim.lr"),
        (["--axis", "activation", "--between", "1", "2"], "activation: is not a number"),
        (["--axis", "model.norm", "--between", "1", "2"], "model.norm: is not a number"),
        (["--axis", "data.standardise", "--between", "0", "1"], "data.standardise: is not a number"),
        (["--axis", "optim.betas", "--between", "0", "1", "optim=adam"], "optim.betas: is not a number"),
        (["--axis", "seed", "--between", "0", "4"], "unit of analysis"),
        (["--axis", "train.checkpoint_seconds", "--between", "1", "4"], "does not change the result"),
        (["--axis", "model.depth", "--between", "1.5", "4"], "expected a whole number"),
        (["--axis", "optim.lr", "--between", "2", "1"], "the smaller first"),
        (["--axis", "optim.lr", "--between", "-1", "1"], "optim.lr: expected a number above 0"),
        (["--axis", "bias.offset", "--between", "-1", "1", "--scale", "log"], "log needs numbers above 0"),
        (["--between", "1", "2"], "Missing option '--axis'"),
        (["--axis", "optim.lr"], "--between LOW HIGH"),
        (["--axis", "optim.lr", "nowhere"], "there is no folder"),
        (["--axis", "optim.lr", "."], "there is no run in"),
        ([*BETWEEN, "optim.lr=1"], "it cannot be an override too"),
        ([*BETWEEN, "seed=1,2"], "Give --seeds"),
        ([*BETWEEN, "output=x"], "Give --output"),
        ([*BETWEEN, "record=off"], "there is no dead share"),
        ([*BETWEEN, "model.depth=0"], "model.depth: expected"),
        ([*BETWEEN, "runs"], "expected overrides"),
        ([*BETWEEN, "--scale", "logg"], "auto, log, linear"),
        ([*BETWEEN, "--resolution", "1"], "ratio above 1"),
        ([*BETWEEN, "--resolution", "0"], "ratio above 1"),
        ([*BETWEEN, "--share", "0"], "above 0 and at most 1"),
        ([*BETWEEN, "--seeds", "0"], "at least 1"),
        ([*BETWEEN, "hydra/launcher=basic"], "our own workers only"),
    ],
)
def test_what_cannot_be_searched_is_refused_and_nothing_written(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, text = edge(*words)
    assert code == 2
    assert says in text
    assert "Traceback" not in text
    assert not list(tmp_path.iterdir())


def test_the_earlier_name_still_works_and_says_so() -> None:
    done = CliRunner().invoke(app, ["edge", "--help"])
    assert done.exit_code == 0
    assert "deprecated" in done.output
