"""`harness-tools scan`: any model from the command line, for people and for CI."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from harness.report.export import export
from harness.tools import app

SOURCE = """
import torch
from torch import nn

def model():
    torch.manual_seed(0)
    layer = nn.Linear(64, 10)
    with torch.no_grad():
        layer.bias[:3] = -1e3
    return nn.Sequential(nn.Flatten(), layer, nn.ReLU(), nn.Linear(10, 2))

def batches():
    return [torch.randn(20, 64), torch.randn(5, 64)]
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_scan_subject.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_prints_writes_and_fails_over_a_share(here: Path) -> None:
    runner = CliRunner()
    files = [f"found{suffix}" for suffix in (".json", ".csv", ".parquet", ".sarif", ".html")]
    arguments = ["scan", "my_scan_subject:model", "--batches", "my_scan_subject:batches"]
    for name in files:
        arguments += ["--out", name]
    done = runner.invoke(app, [*arguments, "--fail-over", "0.3"])
    assert done.exit_code == 0, done.output
    assert "3 of 10 units dead (30.0 %; n = 25" in done.output
    assert runner.invoke(app, [*arguments, "--fail-over", "0.29"]).exit_code == 1
    units = pd.read_parquet(here / "found.parquet")
    assert (units["state"] == "dead").sum() == 3
    assert len(pd.read_csv(here / "found.csv")) == 10
    assert sum(u["state"] == "dead" for u in json.loads((here / "found.json").read_text())["units"]) == 3
    assert "3 of 10 units dead (30.0 %; n = 25" in (here / "found.html").read_text()
    found = json.loads((here / "found.sarif").read_text())
    assert found["version"] == "2.1.0"
    (result,) = found["runs"][0]["results"]
    assert result["ruleId"] == "dead"
    place = result["locations"][0]["physicalLocation"]  # without one, services refuse the file
    line = 1 + (here / "my_scan_subject.py").read_text().splitlines().index("def model():")
    assert place == {
        "artifactLocation": {"uri": "my_scan_subject.py"},
        "region": {"startLine": line},
    }


def test_our_data_serves_too_and_errors_are_clear(here: Path) -> None:
    runner = CliRunner()
    done = runner.invoke(app, ["scan", "my_scan_subject:model", "--data", "digits"])
    assert done.exit_code == 0
    assert "n = 360" in done.output
    for wrong in (
        ["nowhere:model"],
        ["my_scan_subject:nothing"],
        ["my_scan_subject:model", "--data", "digit"],
    ):
        assert runner.invoke(app, ["scan", *wrong]).exit_code == 2
    assert runner.invoke(app, ["scan", "my_scan_subject:model", "--out", "found.txt"]).exit_code == 2


def test_a_model_that_cannot_be_run_is_no_verdict(here: Path) -> None:
    """Exit code 1 would say that too many units are dead."""
    (here / "my_narrow_subject.py").write_text(SOURCE.replace("(20, 64)", "(20, 63)"))
    words = ["my_narrow_subject:model", "--batches", "my_narrow_subject:batches", "--fail-over", "0.9"]
    found = CliRunner().invoke(app, ["scan", *words])
    assert found.exit_code == 2
    assert "the model raised on a batch" in " ".join(found.output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("raise SystemExit(1)", "importing my_odd_subject raised SystemExit: 1"),
        ("def model(:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def model():\n    raise KeyError('width')", "my_odd_subject:model raised KeyError: 'width'"),
        ("import sys\ndef model():\n    sys.exit(1)", "raised SystemExit: 1"),
        ("def model():\n    assert False, 'no weights'", "raised AssertionError: no weights"),
        ("def model():\n    raise GeneratorExit", "raised GeneratorExit"),
        (
            "from torch import nn\n"
            "class Net(nn.Sequential):\n    def forward(self, x):\n        raise SystemExit(0)\n"
            "def model():\n    return Net(nn.ReLU())",
            "cannot be run on these batches (SystemExit: 0)",
        ),
    ],
)
def test_a_factory_that_raises_is_no_verdict(here: Path, source: str, told: str) -> None:
    (here / "my_odd_subject.py").write_text(source)
    sys.modules.pop("my_odd_subject", None)
    importlib.invalidate_caches()
    done = CliRunner().invoke(app, ["scan", "my_odd_subject:model", "--fail-over", "0.9"])
    assert done.exit_code == 2
    assert told in " ".join(done.output.replace("│", " ").split())


def test_a_table_for_a_spreadsheet_has_no_formulas(tmp_path: Path) -> None:
    names = ["=cmd()", "+1+1", "@sum", "-2+3", "-0.5", "fc1"]
    units = pd.DataFrame({"site": names, "rate": [-1.0] * 6, "=evil": 1})
    export(units, tmp_path / "found.csv", subject="a")
    found = pd.read_csv(tmp_path / "found.csv")
    assert found["site"].tolist() == ["'=cmd()", "'+1+1", "'@sum", "'-2+3", "-0.5", "fc1"]
    assert found["rate"].tolist() == [-1.0] * 6
    assert found.columns.tolist() == ["site", "rate", "'=evil"]


def test_the_plan_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "my_planned_subject.py").write_text(
        "import torch\n"
        "def model(): return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU())\n"
        "def batches(): return [torch.ones(2, 3), 'never read']\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ["scan", "my_planned_subject:model", "--batches", "my_planned_subject:batches", "--plan"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == [
        "site  activation  spelling  units  axes   producers",
        "───────────────────────────────────────────────────",
        "1     relu        module    4      (-1,)  0",
    ]


def test_the_plan_takes_neither_files_nor_a_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for words in (["--fail-over", "0.2"], ["--out", str(tmp_path / "units.csv")]):
        done = CliRunner().invoke(app, ["scan", "my_planned_subject:model", "--plan", *words])
        assert done.exit_code == 2
        assert "--plan counts nothing" in " ".join(done.output.replace("│", " ").split())
