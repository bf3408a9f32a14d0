"""Output that cannot be written, and text that would steer a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.config import compose
from harness.sweeps.job import run_job
from harness.words import printable

HARNESS, TOOLS = [sys.executable, "-m", "harness"], [sys.executable, "-m", "harness.tools"]
SMALL = ["train.max_steps=3", "model.width=8", "record.tensorboard=false"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/dev/full")


def shell(command: list[str], end: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Carry out a command with something done to its output, under pipefail."""
    words = " ".join(f"'{word}'" for word in command)
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{words} {end}"],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    run_job(compose([*SMALL, f"output={root}"]))
    return root


@pytest.mark.parametrize("end", ["> /dev/full", ">&-"])
@pytest.mark.parametrize("words", [[*HARNESS, "--help"], [*TOOLS, "--help"], [*TOOLS, "status", "."]])
def test_output_that_cannot_be_written_is_said_as_what_it_is(words: list[str], end: str, runs: Path) -> None:
    done = shell(words, end, runs)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert "standard output cannot be written" in line


@pytest.mark.parametrize("end", ["> /dev/full", ">&-", "| true"])
def test_a_run_is_stored_whoever_reads(end: str, tmp_path: Path) -> None:
    done = shell([*HARNESS, *SMALL, "output=."], end, tmp_path)
    assert done.returncode == (0 if "|" in end else 1)
    assert "Traceback" not in done.stderr
    assert "force" not in done.stderr
    (run,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert '"state": "finished"' in (run / "status.json").read_text()


def test_a_report_is_written_where_nobody_reads_the_console(runs: Path) -> None:
    done = shell([*TOOLS, "report", "."], "| head -1", runs)
    assert (done.returncode, done.stderr) == (0, "")
    assert (runs / "report.html").is_file()


def test_a_terminal_of_ascii(runs: Path) -> None:
    done = shell([*TOOLS, "report", "."], "", runs, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "units dead" in done.stdout
    assert done.stdout.isascii()


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    for command in ([*HARNESS, "--help"], [*TOOLS, "status", "."]):
        (tmp_path / "gone").mkdir()
        done = shell(["cd", "gone"], f"&& rmdir ../gone && {' '.join(command)}", tmp_path, PYTHONSAFEPATH="1")
        assert done.returncode == 2
        assert done.stderr.strip().endswith("the current folder is not there any more")


def test_names_from_files_steer_no_terminal(runs: Path, tmp_path: Path) -> None:
    evil = tmp_path / "a\x1b[2J\x07\u202erun"
    (run,) = (path for path in runs.iterdir() if path.is_dir())
    evil.mkdir()
    for name in ("config.yaml", "status.json", "census.parquet", "steps.parquet"):
        (evil / name).write_bytes((run / name).read_bytes())
    (evil / "events.parquet").write_text("no table")
    for command in ("report", "status", "diagnose", "risk"):
        done = shell([*TOOLS, command, str(tmp_path)], "2>&1", runs)
        assert not {"\x1b", "\x07", "\u202e"} & set(done.stdout), command


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("fc\x1b[2J", r"fc\x1b[2J"),
        ("a\nb\tc", "a\nb\tc"),
        ("é\x85\u202e", r"é\x85\u202e"),
        ("\ud800", r"\ud800"),
    ],
)
def test_control_characters_are_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown
