"""Every claim runs at toy size, is judged, drawn, and stored; a second run trains nothing."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pandas as pd
import pytest

from experiments import command, registry, running
from experiments.budgets import overrides
from experiments.claim import Claim
from experiments.shelf import Shelf
from harness.config import plan


@pytest.fixture(autouse=True)
def _no_data_from_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "none"))


@pytest.mark.parametrize("name", registry.names())
def test_it_runs_at_toy_size(name: str, tmp_path: Path) -> None:
    claim = registry.claim(name)
    (result,) = command.run([name], "toy", tmp_path, workers=1)
    assert result.verdict is not None
    assert result.verdict.word == "undecided", "two seeds decide nothing"
    assert result.verdict.seeds == result.table["seed"].nunique() >= 2
    assert len(result.table) == result.verdict.runs > 2
    for finding in (*result.verdict.findings, *result.verdict.also):
        assert finding.seeds + finding.lost >= 2, finding.label
    picture = tmp_path / "pictures" / "toy" / result.data / f"{name}.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    data = "digits" if any(claim.tried_on) else ""
    stored = Shelf(tmp_path / command.RESULTS).get(name, "toy", data)
    assert stored is not None
    pd.testing.assert_frame_equal(stored.table, result.table, check_dtype=False)
    assert repr(stored.verdict) == repr(result.verdict)
    again = claim.decide(stored.table)
    assert (again.word, again.text) == (result.verdict.word, result.verdict.text)
    plan = running.train(running.planned([(claim, data)], "toy", tmp_path))
    assert plan is None or not plan.tasks


@pytest.mark.parametrize("name", registry.names())
def test_it_says_what_it_has_to(name: str) -> None:
    claim = registry.claim(name)
    for field in ("sentence", "source", "metric", "interest", "design"):
        text = getattr(claim, field)
        assert text.strip() == text, field
        assert "  " not in text, field
    for field in ("sentence", "metric", "interest", "design"):
        assert getattr(claim, field).endswith("."), field
    for budget, data, sweep in itertools.product(("small", "standard", "full"), claim.tried_on, claim.sweeps):
        words = overrides(sweep, budget, data)
        (seeds,) = (word for word in words if word.startswith("seed="))
        bounds = seeds.removeprefix("seed=range(").removesuffix(")").split(",")
        assert len(range(*map(int, bounds))) >= 8
        runs = plan([*(word for word in words if word != seeds), "seed=0"], multirun=True)
        assert all(not run.record.tensorboard for run in runs)


def test_a_claim_needs_runs_or_a_measure() -> None:
    claim = registry.claim("negative_bias")
    with pytest.raises(ValueError, match="either sweeps or a measure"):
        dataclasses.replace(claim, sweeps=())
    with pytest.raises(ValueError, match="either sweeps or a measure"):
        dataclasses.replace(claim, measure=lambda budget: pd.DataFrame())


def test_claims_are_claims_and_their_figures_are_figures() -> None:
    found = registry.claims()
    assert [claim.name for claim in found if claim.kind == "textbook"] == sorted(
        claim.name for claim in found if claim.kind == "textbook"
    )
    assert all(isinstance(claim, Claim) for claim in found)
