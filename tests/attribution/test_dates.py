"""Dates of deaths: on one evidence, and never before the last opening there."""

from __future__ import annotations

import warnings
from typing import Any

import pandas as pd
import pytest
import torch
from small_trainings import stepped
from torch import Tensor, nn

import harness
from harness.attribution.dates import death_steps
from harness.detector.verdict import verdict


def censuses(kind: str, opened: dict[int, int], n: int = 100) -> pd.DataFrame:
    """Of one unit: step of each census → how many of its inputs opened it."""
    rows, silent = [], 0
    for step, active in opened.items():
        silent = 0 if active else silent + n
        state = "active" if active else "dead"
        rows.append({"evidence": kind, "step": step, "active": active, "silent_for": silent, "state": state})
    return pd.DataFrame(rows).assign(site="a", unit=0, n=n)


UNITS = pd.DataFrame({"site": ["a"], "unit": [0], "dead": [True], "born": [False]})


@pytest.mark.parametrize(
    ("probe", "stream", "died"),
    [
        ({0: 9, 50: 0, 100: 0, 150: 0}, {50: 5, 100: 5, 150: 0}, 50),  # training opened it for longer
        ({0: 9, 50: 9, 100: 0, 150: 0}, {50: 0, 100: 0, 150: 0}, 100),  # training had ceased to
        ({0: 9, 50: 9, 100: 0, 150: 0}, {50: 5, 100: 5, 150: 5}, 100),  # training opens it still
        ({0: 9, 50: 0, 100: 9, 150: 0}, {50: 5, 100: 0, 150: 0}, 150),  # its last death counts
    ],
)
def test_the_probes_deaths_are_dated_between_its_own_censuses(
    probe: dict[int, int], stream: dict[int, int], died: int
) -> None:
    rows = censuses("probe", probe)
    assert death_steps(rows, censuses("stream", stream), UNITS).tolist() == [died]


def test_the_stream_tells_the_step_between_two_censuses_of_the_probe() -> None:
    stream = censuses("stream", {50: 5, 100: 5, 150: 0})
    stream.loc[2, "silent_for"] = 160  # of 300 inputs in 150 steps
    died = death_steps(censuses("probe", {0: 9, 50: 9, 100: 0, 150: 0}), stream, UNITS)
    assert died.tolist() == [71]
    assert death_steps(stream, stream, UNITS).tolist() == [71]


def test_the_born_dead_and_the_living_have_no_date() -> None:
    rows = censuses("stream", {10: 0, 20: 0})
    for change in ({"born": True}, {"dead": False}):
        assert pd.isna(death_steps(rows, rows, UNITS.assign(**change))).all()


class Late(nn.Module):
    """The second head is called from the twelfth step on."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.act_a, self.act_b = nn.Linear(4, 8), nn.Linear(4, 8), nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor, late: bool) -> Tensor:
        out = self.act_a(self.a(x)).sum()
        return out + self.act_b(self.b(x)).sum() if late else out


def test_units_that_were_seen_late_are_dead_at_the_first_census_that_saw_them() -> None:
    torch.manual_seed(0)
    model: Any = Late()
    with torch.no_grad():
        model.a.bias[:2] = -50.0
        model.b.bias[:3] = -50.0
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    recorder = harness.Recorder(model, optimizer=optimizer, census_every=10)
    with recorder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that act_b is not called in the first window
        for step in range(30):
            loss = model(torch.randn(40, 4), step >= 12)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(loss=loss)
    seen = "5 were dead at the first census that saw them (2 at step 10, 3 at step 20)"
    assert seen in verdict(recorder.history()).text
    life = recorder.explain("act_b", 0).splitlines()[-2]
    assert life.endswith("dead at the first census that saw it, step 20 (on the training stream)")


def test_passes_over_a_probe_are_no_new_inputs() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    nn.init.constant_(model[0].bias, -50.0)
    with harness.Recorder(model, probe=torch.randn(40, 4), census_every=1) as recorder:
        for _ in range(4):
            recorder.step()
    text = recorder.explain("1", 0)
    assert "silent on these same inputs in the last 5 censuses" in text
    assert "born dead (on the probe)" in text


def test_a_recorder_that_continues_does_not_date_what_died_before() -> None:
    """Its state has the evidence of the first part, but not the censuses."""
    torch.manual_seed(0)
    x = torch.randn(256, 8)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    state: Any = None
    for part in (range(20), range(20, 40)):
        recorder = harness.Recorder(model, optimizer=optimizer, census_every=10, evidence=True)
        if state is not None:
            recorder.load_state_dict(state)
        with recorder:
            for step in part:
                if step == 7:
                    with torch.no_grad():
                        next(p for p in model.parameters() if p.ndim == 1)[:10] = -50.0
                stepped(recorder, optimizer, nn.functional.cross_entropy(model(x), (x.sum(1) > 0).long()))
            state = recorder.state_dict()
    found = recorder.diagnose()
    assert found.units["died_at"].isna().all(), found.units
    assert "10 died" in found.text
    assert "10 died at" not in found.text
