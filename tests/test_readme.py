"""Every block of the README and of the tutorials runs as printed, in order, in one folder like a clone.

Trainings are shorter than a reader's: what they print is not compared.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
TUTORIALS = ("own_model", "sweep", "curing")
PAGES = (ROOT / "README.md", *(ROOT / "docs" / "tutorials" / f"{name}.md" for name in TUTORIALS))
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<why>[^\n]+) -->\n)?^```(?P<kind>bash|python)\n(?P<code>.*?)^```$", re.M | re.S
)
ACTIVATE = "source .venv/bin/activate\n"
# Three epochs instead of twenty, unless the page says how many. All cases of the self-test are those of
# tests/hooks/test_recorder_truth.py.
COMMANDS = {
    "harness": "exec '{python}' -m harness train.epochs=3 \"$@\"",
    "harness-tools": "[ \"$1\" != selftest ] || set -- selftest --only 'conv*'\n"
    "exec '{python}' -m harness.tools \"$@\"",
}
# Blocks of Python share one namespace, as in a notebook; a shell is begun for each block of commands.
PROGRAM = """
import json, subprocess, sys
space = {"__name__": "__main__"}
for kind, code in json.load(sys.stdin):
    print(f"--- {kind}", code, sep="\\n", flush=True)
    if kind == "bash":
        subprocess.run(["bash", "-e", "-o", "pipefail", "-c", code], check=True, stdin=subprocess.DEVNULL)
    else:
        exec(compile(code, "block", "exec"), space)
"""


class Block(NamedTuple):
    """Code of a page; `why` is the reason if it is not run."""

    kind: str
    code: str
    why: str | None


def blocks(page: Path) -> list[Block]:
    """The blocks of bash and Python, in order."""
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(one["kind"], one["code"], one["why"]) for one in found]


def lay_out(folder: Path) -> None:
    """A clone whose environment was made: our scripts, and what the commands read."""
    scripts = folder / ".venv" / "bin"
    scripts.mkdir(parents=True)
    for name, command in COMMANDS.items():
        (scripts / name).write_text(f"#!/bin/sh\n{command.format(python=sys.executable)}\n")
        (scripts / name).chmod(0o755)
    (scripts / "python").symlink_to(sys.executable)
    (scripts / "activate").write_text(f"export PATH='{scripts}':$PATH\n")
    for name in ("configs", "docs", "experiments", "harness", "notebooks"):
        (folder / name).symlink_to(ROOT / name)


def run(folder: Path, steps: Sequence[tuple[str, str]]) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(steps),
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.mark.skipif(sys.platform != "linux", reason="bash")
def test_all_blocks_run_in_order(tmp_path: Path) -> None:
    lay_out(tmp_path)
    active = ""  # once a page has said so, every later shell is one with the environment
    for page in PAGES:
        steps = []
        for block in blocks(page):
            if block.why is None:
                steps.append((block.kind, active + block.code if block.kind == "bash" else block.code))
            if ACTIVATE in block.code:
                active = ACTIVATE
        run(tmp_path, steps)
    for name in ("phase.png", "phase.svg", "map.svg", "sweep.html", "runs/mine/report.html"):
        assert (tmp_path / name).is_file(), name


def test_few_blocks_are_not_run() -> None:
    left_out = [block for page in PAGES for block in blocks(page) if block.why is not None]
    assert all("pip install" in block.code for block in left_out)
    assert len(left_out) <= 3


def test_the_readme_is_short_and_its_set_up_is_that_of_ci() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 200
    commands = [block.code.strip() for block in blocks(ROOT / "README.md") if "pip install" in block.code]
    assert commands == [
        "python3 -m venv .venv && .venv/bin/pip install -q . && .venv/bin/harness",
        "python3 -m venv .venv && .venv/bin/pip install -q -e '.[test]' && .venv/bin/pytest",
    ]
    ci = ROOT / ".ci" / "run"
    assert not ci.is_file() or commands[1] in ci.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.stem)
def test_what_it_links_to_is_there(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert targets
    assert not [target for target in targets if not (ROOT / target).exists()]
