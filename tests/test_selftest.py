"""The self-test passes on this torch, and fails as soon as the counting is broken."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from harness.activations import lookup as functional
from harness.activations import rectified as activations
from harness.activations.gates import Gate
from harness.attribution.recorder import Recorder
from harness.graph.making import Making, guess
from harness.hooks import counting
from harness.selftest.cases import CASES
from harness.selftest.compare import EXACT, NEAR, assert_same_census, differences
from harness.selftest.run import run
from harness.selftest.show import sound
from harness.selftest.truth import true_scan
from harness.tools import app


def selftest(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["selftest", *arguments])
    return done.exit_code, done.output


def score(output: str) -> tuple[int, int]:
    found = re.search(r"^(\d+) of (\d+) passed on torch \S+, python \S+, device cpu$", output, re.MULTILINE)
    assert found is not None, output
    return int(found[1]), int(found[2])


def test_it_passes_here_and_writes_what_it_prints(tmp_path: Path) -> None:
    code, output = selftest("--only", "conv*", "--verbose", "--json", str(tmp_path / "result.json"))
    passed, total = score(output)
    assert (code, passed) == (0, total)
    assert total >= 7
    assert "conv channels_last" in output
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["passed"], result["total"], result["device"]) == (passed, total, "cpu")
    assert {case["status"] for case in result["cases"]} == {"passed"}


def lower_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activations, "zero_side", lambda slope, eps: Gate(low=-0.05))


def blind_to_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functional, "bound", lambda *_: None)


def without_lineage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "making", lambda z, *_: Making((), guess(z.shape)))


def off_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    history = Recorder.history
    monkeypatch.setattr(Recorder, "history", lambda self: history(self).assign(n=history(self)["n"] + 1))


def hidden_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    history = Recorder.history
    monkeypatch.setattr(Recorder, "history", lambda self: history(self).query("unit >= 0"))


def crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def sites(self: Recorder) -> Any:
        raise KeyError("broken")

    monkeypatch.setattr(Recorder, "sites", property(sites))


@pytest.mark.parametrize(
    ("broken", "only", "shown"),
    [
        (lower_gate, "mlp", "active"),
        (blind_to_functions, "F.relu*", "no activation was seen"),
        (without_lineage, "shared relu", "producer"),
        (off_by_one, "residual", "unit 0: n"),
        (hidden_rows, "never called", "unused"),
        (crash, "mlp", "KeyError"),
    ],
)
def test_it_fails_when_the_counting_is_broken(
    broken: Callable[[pytest.MonkeyPatch], None],
    only: str,
    shown: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    code, output = selftest("--only", only)
    assert code == 0, output
    before = score(output)
    broken(monkeypatch)
    code, output = selftest("--only", only, "--json", str(tmp_path / "result.json"))
    after = score(output)
    assert code == 1, output
    assert after[0] < before[0]
    assert after[1] == before[1]
    assert "expected" in output
    assert "got" in output
    assert shown in (tmp_path / "result.json").read_text()


@pytest.mark.parametrize(
    "wrong",
    [["--only", "no such case"], ["--only", ""], ["--device", "nowhere"], ["--json", "no/such/folder/x"]],
)
def test_what_was_mistyped_is_refused(wrong: list[str]) -> None:
    code, output = selftest("--only", "mlp", *wrong)
    assert code == 2, output


def test_what_this_torch_lacks_is_not_available_and_never_passed() -> None:
    case = CASES["mlp"]

    def no_such_operation(*_: Any) -> Any:
        raise NotImplementedError("no kernel for this")

    cases = {
        "newer": replace(case, needs=("torch.nn.ReLU", "torch.nn.InventedInTwoYears")),
        "other device": replace(case, reference=no_such_operation),
    }
    outcomes = list(run({"some": cases}))
    assert [one.status for one in outcomes] == ["not available"] * 2
    assert [one.reason for one in outcomes] == [
        "this torch has no torch.nn.InventedInTwoYears",
        "no kernel for this",
    ]
    assert not sound(outcomes)
    assert sound([*outcomes, *run({"some": {"mlp": case}})])


@pytest.mark.parametrize("column", [*EXACT, *NEAR])
def test_every_column_is_compared(column: str) -> None:
    case = CASES["mlp"]
    truth = true_scan(case.make(), case.reference, case.sites, case.batches(), case.loss).fillna(0.5)
    assert_same_census(truth.sample(frac=1, random_state=0), truth)
    wrong = truth.copy()
    if column == "state":
        wrong.loc[3, "state"] = "rare"
    elif column in EXACT:
        wrong[column] += (wrong.index == 3).astype(int)
    else:
        wrong[column] = wrong[column] * 1.001 + 0.001
    assert {d.where.rpartition(" ")[2] for d in differences(wrong, truth)} == {column}
    with pytest.raises(AssertionError, match=rf": {column}: expected"):
        assert_same_census(wrong, truth)
    assert pd.Series(differences(truth.iloc[1:], truth)).tolist()[0][0] == "rows"
