"""The console's view of a run, against golden text."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from harness.detector.states import classify
from harness.report.tables import run_view

GOLDEN = Path(__file__).parent.parent / "golden"


def history() -> pd.DataFrame:
    """Two sites of four units: one born dead, two that die (one revives), one rare, one starved."""
    counts = {  # evidence, step, site: inputs on which each unit's gate was open
        ("probe", 0, "a"): [0, 90, 50, 200],
        ("probe", 0, "b"): [40, 60, 80, 100],
        ("stream", 10, "a"): [0, 90, 50, 64],
        ("stream", 10, "b"): [0, 5, 1, 9],
        ("probe", 10, "a"): [0, 0, 50, 1],
        ("probe", 10, "b"): [0, 60, 1, 100],
        ("stream", 20, "a"): [0, 0, 50, 64],
        ("stream", 20, "b"): [3, 5, 1, 9],
        ("probe", 20, "a"): [0, 0, 50, 200],
        ("probe", 20, "b"): [4, 60, 1, 100],
    }
    rows = [
        {
            "evidence": evidence,
            "step": step,
            "site": site,
            "unit": unit,
            "n": 200 if evidence == "probe" else 64,
            "active": active,
            "non_finite": 0,
            "rate": active / (200 if evidence == "probe" else 64),
            "grad_rms": float("nan") if evidence == "probe" else 0.0 if active in (0, 5) else 1e-3,
        }
        for (evidence, step, site), counted in counts.items()
        for unit, active in enumerate(counted)
    ]
    return classify(pd.DataFrame(rows))


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
    assert "no statement about dead units" in captured.get()
