"""Configurations of one's own: groups in other folders, from the command line to stored runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness import cli, open_runs
from harness.config import ConfigError, compose, explain, groups, plan, restore, run_id, to_mapping
from harness.tools import app

TINY = ["train.max_steps=6", "record.tensorboard=false"]
FILES = {
    "experiment/mine.yaml": """
        # @package _global_
        defaults: [{override /model: wide}, {override /optim: fast}]
        seed: 5
        """,
    "experiment/vision/deep.yaml": "# @package _global_\nmodel: {depth: 5}\n",
    "experiment/swept.yaml": """
        # @package _global_
        hydra: {mode: MULTIRUN, sweeper: {params: {model: "wide,mlp", seed: "range(2)"}}}
        """,
    "model/wide.yaml": "# Mine.\ndefaults: [mlp, _self_]\nwidth: 24   # as wide as I like\n",
    "model/loose.yaml": "name: mlp\nwidth: 24\n",
    "model/misnamed.yaml": "defaults: [mlp, _self_]\nname: cnn\n",
    "model/torn.yaml": "defaults: [mlp, _self_]\nwidth: [\n",
    "model/typo.yaml": "defaults: [mlp, _self_]\nwidht: 3\n",
    "optim/fast.yaml": "defaults: [adam, _self_]\nlr: 0.05\n",
    "activation/steep.yaml": "defaults: [leaky_relu, _self_]\nslope: 0.3\n",
    "arch/big.yaml": "# @package _global_\nmodel: {width: 99}\n",
    "mine.yaml": "defaults: [config, {override model: wide}, {override optim: fast}, _self_]\nseed: 5\n",
    "lonely.yaml": "seed: 5\n",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        file = tmp_path / "conf" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(line.removeprefix("        ") for line in text.strip().splitlines()))
    return tmp_path


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([*argv])
    assert isinstance(ended.value.code, int)
    return ended.value.code


WAYS = {
    "--config-dir conf": "experiment=mine",
    "--config-dir=conf": "experiment=mine",
    "-cd conf": "experiment=mine",
    "hydra.searchpath=[file://conf]": "experiment=mine",
    "--config-path conf --config-name mine": "",
    "--config-path conf": "experiment=mine",
    "--config-dir conf --config-name mine": "",
}


@pytest.mark.parametrize("way", WAYS)
def test_ones_own_groups_are_found(way: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*way.split(), *WAYS[way].split()]
    spec = compose(words)
    assert (spec.model.width, spec.optim.lr, spec.seed) == (24, 0.05, 5)  # type: ignore[attr-defined]
    assert run(*words, "--dry-run") == 0
    assert run_id(spec) in capsys.readouterr().out
    assert run("--cfg", "job", "-p", "model", *words) == 0
    assert "width: 24" in capsys.readouterr().out
    assert run("--help", *words) == 0
    said = capsys.readouterr().out
    assert " | wide" in said
    assert "width: 24" in said
    assert len(plan([*words, "seed=1,2", "model=wide,mlp"], multirun=True)) == 4


def test_an_experiment_sets_whatever_it_likes_and_the_command_line_wins() -> None:
    assert compose(["--config-dir=conf", "experiment=mine"]).seed == 5
    assert compose(["--config-dir=conf", "experiment=mine", "seed=7"]).seed == 7
    assert compose(["--config-dir=conf", "experiment=vision/deep"]).model.depth == 5  # type: ignore[attr-defined]


def test_an_activation_is_built_on_one_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["-m", "--config-dir", "conf", "activation=steep,relu", "model.width=8", "model.depth=1"]
    assert run(*words, *TINY) == 0
    assert "2 as 1 cohort(s) of 2" in capsys.readouterr().out
    assert sorted(open_runs("runs").table["activation.name"]) == ["leaky_relu", "relu"]


def test_a_group_of_ones_own_can_be_added() -> None:
    assert compose(["--config-dir=conf", "+arch=big"]).model.width == 99  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="not added or deleted"):
        compose(["+arch=big"])


def test_a_folder_is_that_of_the_moment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was composed is kept, but by the folder's full name."""
    (folder / "it's other" / "conf" / "experiment").mkdir(parents=True)
    (folder / "it's other" / "conf" / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 8\n")
    for words in (["hydra.searchpath=[file://conf]"], ["hydra.searchpath=[conf]"], ["--config-dir=conf"]):
        assert compose([*words, "experiment=mine"]).seed == 5
        monkeypatch.chdir(folder / "it's other")
        assert compose([*words, "experiment=mine"]).seed == 8
        assert "width: 24" not in explain("model", words)
        monkeypatch.chdir(folder)


def test_folders_of_one_command_line_are_not_those_of_the_next() -> None:
    assert "wide" in groups(("--config-dir=conf",))["model"]
    assert "wide" not in groups()["model"]
    compose(["--config-dir=conf", "model=wide"])
    with pytest.raises(ConfigError, match="but got wide"):
        compose(["model=wide"])


WRONG = {
    "--config-dir": "--config-dir: expected a folder, but got nothing",
    "--config-dir nowhere": "--config-dir: expected a folder, but got nowhere",
    "--config-path conf/mine.yaml": "--config-path: expected a folder",
    "--config-name": "--config-name: expected the name of a configuration",
    "--config-name nothing": "Cannot find primary config 'nothing'",
    "--config-path conf --config-name lonely": "lonely is no configuration of a run",
    "hydra.searchpath=[file://nowhere]": "hydra.searchpath: expected a folder, but got file://nowhere",
    "hydra.searchpath=[pkg://nowhere]": "hydra.searchpath: there is no folder nowhere",
    "hydra.searchpath=3": "hydra.searchpath: expected a list of folders",
    "--config-dir conf model=wied": "Did you mean wide",
    "--config-dir conf model=loose": "Key 'width' not in 'Model'",
    "--config-dir conf model=misnamed": "model.name: expected one of mlp, as of the keys beside it,",
    "--config-dir conf model=torn": "torn.yaml",
    "--config-dir conf model=typo": "widht",
    "--config-dir conf experiment=mine model.widht=3": "Did you mean model.width",
    "-m --config-dir conf model=wide,wied": "model: expected one of",
    "--config-dir conf --frobnicate": "there is no such option",
}


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_folder_or_file_is_one_clear_line(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*TINY, *line.split()) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert WRONG[line] in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert not Path("runs").exists()


def test_a_sweep_of_an_experiment_and_its_runs_afterwards(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--config-dir", "conf", "experiment=swept", *TINY]
    assert run(*words) == 0
    runs = open_runs("runs")
    assert sorted(runs.table["model.width"]) == [24, 24, 128, 128]
    assert run(*words) == 0
    assert "0 to train, 4 with a stored result" in capsys.readouterr().out
    shutil.rmtree("conf")  # as on another machine
    specs = [restore(one.config) for one in open_runs("runs")]
    assert [run_id(spec) for spec in specs] == [one.name for one in runs]
    assert all(to_mapping(spec) == one.config for spec, one in zip(specs, runs, strict=True))
    one = str(runs[0].path)
    for command in (["report", "runs"], ["compare", "runs"], ["status", "runs"], ["diagnose", one]):
        assert CliRunner().invoke(app, command).exit_code == 0, command


def test_other_launchers_take_ones_own_groups_and_networks(tmp_path: Path) -> None:
    """Whole cohorts and runs in other processes: they need nothing but the code."""
    Path("own_net.py").write_text(
        "from torch import nn\n"
        "def net(width: int = 4): return nn.Sequential(\n"
        "    nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))\n"
    )
    words = ["-m", "--config-dir", "conf", "optim=fast", "model=custom", "model.target=own_net:net"]
    words += ["model.args.width=4,6", "hydra/launcher=submitit_local", *TINY]
    done = subprocess.run(
        [sys.executable, "-m", "harness", *words], capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    table = open_runs("runs").table
    assert sorted(table["model.args.width"]) == [4, 6]
    assert set(table["status"]) == {"finished"}
    assert set(table["optim.lr"]) == {0.05}


def test_the_environment_says_where_data_lie() -> None:
    code = "from harness.config import compose as c; print(c().data.root, c(['data.root=b']).data.root)"
    for root, said in (({}, "~/.cache/dying-relu-harness b"), ({"HARNESS_DATA": "/mine"}, "/mine b")):
        kept = {key: value for key, value in os.environ.items() if key != "HARNESS_DATA"} | root
        done = subprocess.run(
            [sys.executable, "-c", code], env=kept, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == said


def test_what_begins_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("optim=adam", "optim.lr=0.01", "model.width=8", "model.depth=1", *TINY) == 0
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("digits-mlp-relu-adam-lr0.01-s0-")
    assert line.endswith(
        "on cpu, 6 steps; changed from the defaults: model.depth=1 (3), model.width=8 (128), optim=adam, "
        "optim.lr=0.01 (0.001), train.max_steps=6"
    )


EXPLAINED = {
    "record.early": ("and after steps 1, 2, 4, 8, ...", "true or false", "default  true (record=standard)"),
    "optim.lr": ("learning rate", "a number above 0 and at most 1e+36", "0.1 (optim=sgd); adam 0.001"),
    "model.norm": ("none | batch | layer", "one of none, batch, layer", "none (model=mlp); vgg batch"),
    "remedy.every": ("of remedy=auto, bias_lift, leaky_swap, redo", "a whole number at least 1", "redo 100"),
    "activation.slope": ("of activation=leaky_relu, prelu", "a number", "leaky_relu 0.01, prelu 0.25"),
    "train.max_steps": ("ends earlier", "a whole number at least 1, or null", "null"),
    "seed": ("of weights", "a whole number at least 0", "0"),
    "model.args": ("its keyword arguments", "keys with values", "custom {}"),
    "model.args.width": ("the function that model.target names",),
    "hydra.launcher.workers": ("one per core", "a whole number or null", "null"),
    "record": ("What is kept", "* standard  What most questions need.", "record.census_every: steps"),
    "init": ("How weights are drawn", "* kaiming_normal", "init.gain: multiplies"),
    "model": ("* mlp", "custom       A network of your own", "model.depth: hidden layers"),
}


@pytest.mark.parametrize("key", EXPLAINED)
def test_keys_and_groups_are_explained(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--explain", key) == 0
    said = capsys.readouterr().out
    assert all(words in said for words in EXPLAINED[key]), said


def test_every_key_has_a_comment_or_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "width: as wide as I like" in explain("model", ["--config-dir=conf", "model=wide"])
    assert "wide         Mine." in explain("model", ["--config-dir=conf"])
    steep = explain("activation.slope", ["--config-dir=conf", "activation=steep"])
    assert "0.3 (activation=steep); leaky_relu 0.01, prelu 0.25" in steep
    for key in ("optim.lrr", "nothing", "model.name"):
        assert run("--explain", key) == 2
        assert "there is no such key" in capsys.readouterr().err
    assert "--explain record.early" in _help(capsys)


def test_help_shows_what_has_still_to_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help", "model=custom", "model.args.width=3", "optim.lr=0.5") == 0
    said = capsys.readouterr().out
    assert all(words in said for words in ("target: ???", "width: 3", "lr: 0.5"))
    assert run("--help", "optim.lrr=3") == 2


def _help(capsys: pytest.CaptureFixture[str]) -> str:
    assert run("--help") == 0
    return capsys.readouterr().out


def test_the_environment_is_that_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one process: a composition that was made before holds no other root."""
    roots = []
    for place in ("/one", "/two", "/one"):
        monkeypatch.setenv("HARNESS_DATA", place)
        roots.append([compose(words).data.root for words in ([], ["optim.lr=0.5"], ["data=mnist"])])
    assert roots == [["/one"] * 3, ["/two"] * 3, ["/one"] * 3]
