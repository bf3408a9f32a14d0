"""The package as a wheel leaves it, used from another folder with things of one's own."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TINY = ["train.max_steps=6", "record.tensorboard=false"]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a pseudo-terminal with bash")


def build_wheel(site: Path, scratch: Path) -> None:
    subprocess.run(
        [*PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", str(scratch), str(ROOT)], check=True
    )
    (wheel,) = scratch.glob("*.whl")
    subprocess.run([*PIP, "install", "--no-deps", "--target", str(site), str(wheel)], check=True)


def lay_out(site: Path) -> None:
    """What pyproject.toml tells hatchling to put into a wheel, and the two scripts."""
    target = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]
    for name in target["only-include"]:
        shutil.copytree(
            ROOT / name,
            site / target["sources"].get(name, name),
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    (site / "bin").mkdir()
    for script, module in (("harness", "harness"), ("harness-tools", "harness.tools")):
        (site / "bin" / script).write_text(f"#!/bin/sh\nexec '{sys.executable}' -m {module} \"$@\"\n")
        (site / "bin" / script).chmod(0o755)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    if find_spec("hatchling"):
        build_wheel(folder, tmp_path_factory.mktemp("wheel"))
    else:
        lay_out(folder)
    return folder


@pytest.fixture(scope="module")
def home(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration, a network and data of one's own."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "conf" / "experiment").mkdir(parents=True)
    (folder / "conf" / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nseed: 5\noptim: {lr: 0.3}\n"
    )
    (folder / "conf" / "model").mkdir()
    (folder / "conf" / "model" / "wide.yaml").write_text("defaults: [mlp, _self_]\nwidth: 24\ndepth: 1\n")
    (folder / "nets.py").write_text(
        "from torch import nn\n"
        "def net(classes: int, input_shape: tuple, width: int = 4):\n"
        "    return nn.Sequential(nn.Linear(*input_shape, width), nn.ReLU(), nn.Linear(width, classes))\n"
    )
    (folder / "sets.py").write_text(
        "import torch\n"
        "def two():\n"
        "    x = torch.rand(60, 5)\n"
        "    return (x, (x.sum(1) > 2.5).long()), (x[:20], (x[:20].sum(1) > 2.5).long())\n"
    )
    return folder


def environment(site: Path, home: Path) -> dict[str, str]:
    path = f"{site / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PYTHONPATH": str(site), "HOME": str(home), "PATH": path, "SHELL": "/bin/bash"}


def harness(*words: str, site: Path, home: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "harness", *words],
        cwd=home,
        env=environment(site, home),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout + done.stderr


@pytest.mark.skipif(not find_spec("hatchling"), reason="the build backend, hatchling, is not installed")
def test_a_wheel_has_the_package_and_the_tree(site: Path) -> None:
    assert (site / "harness" / "_configs" / "config.yaml").is_file()
    assert (site / "harness" / "_configs" / "model" / "custom.yaml").is_file()
    assert (site / "harness" / "sweeps" / "plugin" / "hydra_plugins").is_dir()


def test_ones_own_things_are_found_from_another_folder(site: Path, home: Path) -> None:
    said = harness("--config-dir", "conf", "experiment=mine", "model=wide", "--dry-run", site=site, home=home)
    assert "mlp-relu-sgd-lr0.3-s5-" in said
    words = ["hydra.searchpath=[file://conf]", "experiment=mine", "model=custom", "model.target=nets:net"]
    words += ["data=custom", "data.target=sets:two", "-m", "model.args.width=4,6", *TINY]
    said = harness(*words, site=site, home=home)
    assert "two-net_width4-sgd-lr0.3-s5-" in said
    assert said.count("finished") == 2


def typed(line: str, wanted: str, site: Path, home: Path, patience: float = 30.0) -> str:
    """What an interactive bash shows when a line is typed and Tab is pressed."""
    ours, theirs = pty.openpty()
    shell = subprocess.Popen(
        ["bash", "--rcfile", str(home / ".bashrc"), "-i"],
        cwd=home,
        env=environment(site, home) | {"TERM": "dumb", "PS1": "> "},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown, until = "", time.monotonic() + patience
    try:
        os.write(ours, f"{line}\t".encode())
        while wanted not in shown and time.monotonic() < until:
            if select.select([ours], [], [], 0.2)[0]:
                shown += os.read(ours, 4096).decode(errors="replace")
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)
    return shown


def test_bash_completes_both_commands(site: Path, home: Path) -> None:
    for _ in range(2):  # the second time changes nothing
        assert "bash completes harness" in harness("--install-completion", site=site, home=home)
    tools = ["harness-tools", "--install-completion", "bash"]
    subprocess.run(tools, cwd=home, env=environment(site, home), check=True, capture_output=True, timeout=60)
    assert (home / ".bashrc").read_text().count("/harness.sh'") == 1
    for line, wanted in {
        "harness --config-dir conf experiment=mi": "experiment=mine",
        "harness -cd conf model=wi": "model=wide",
        "harness optim.weight_d": "optim.weight_decay=",
        "harness --expl": "--explain",
        "harness-tools comp": "compare",
    }.items():
        assert wanted in typed(line, wanted, site, home), line


def test_the_commands_of_the_docs_run_as_printed(site: Path, tmp_path: Path) -> None:
    section = (
        (ROOT / "docs" / "howto" / "own_configs.md")
        .read_text()
        .partition("## Your own networks")[2]
        .partition("\n## ")[0]
    )
    code, commands = (section.split(f"```{kind}\n")[1].partition("```")[0] for kind in ("python", "bash"))
    (tmp_path / "mine.py").write_text(code)
    shell = ["bash", "-e", "-o", "pipefail", "-c", commands]
    done = subprocess.run(
        shell, cwd=tmp_path, env=environment(site, tmp_path), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    names = sorted(path.name for path in (tmp_path / "runs").iterdir() if (path / "status.json").is_file())
    assert [name.partition("-s0-")[0] for name in names] == [
        "data-net_width32-sgd-lr0.1",
        "data-net_width64-sgd-lr0.1",
        "digits-mlp-relu-sgd-lr0.5",
    ]
