"""The console's view of a run, against golden text."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from report_frames import history
from rich.console import Console

from harness.report.tables import run_view

GOLDEN = Path(__file__).parent.parent / "golden"

CASES = {
    "run.txt": {"title": "digits · mlp", "accuracy": 0.5},
    "diverged.txt": {"title": "digits · mlp", "diverged_at": 23},
}


@pytest.mark.parametrize("name", CASES)
def test_the_view_of_a_run(name: str) -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(run_view(history(), **CASES[name]))
    text = "\n".join(line.rstrip() for line in console.export_text().splitlines()) + "\n"
    assert text == (GOLDEN / name).read_text(encoding="utf-8")


def test_nothing_recorded_is_said() -> None:
    console = Console(width=100)
    with console.capture() as captured:
        console.print(run_view(history().iloc[:0], title="x"))
    assert "no statement about dead units" in " ".join(captured.get().split())
