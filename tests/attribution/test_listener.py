"""A listener's errors: the training goes on, one warning says why, and the evidence says so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import harness
from harness.attribution.snapshots import Snapshots
from harness.attribution.step_metrics import StepMetrics
from harness.recording.listener import Guard
from harness.recording.recorder import ActivationRecorder


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))


def train(model: nn.Module, recorder: harness.Recorder | None, optimizer: torch.optim.Optimizer) -> None:
    draw = torch.Generator().manual_seed(1)
    for _ in range(10):
        loss = model(torch.randn(16, 5, generator=draw)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if recorder is not None:
            recorder.step(loss=loss)


def failing(*_: Any) -> Any:
    raise NotImplementedError("aten._foreach_copy_")


PLACES = [
    (StepMetrics, "attach"),
    (StepMetrics, "read_inputs"),
    (StepMetrics, "_before_step"),
    (StepMetrics, "_after_step"),
    (StepMetrics, "step"),
    (StepMetrics, "detach"),
    (Snapshots, "attach"),
    (Snapshots, "_forward"),
    (Snapshots, "census"),
]


@pytest.mark.parametrize(("part", "method"), PLACES)
def test_an_error_anywhere_leaves_training_and_census_as_they_are(
    part: type, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, watched = net(), net()
    train(plain, None, torch.optim.SGD(plain.parameters(), lr=0.3))
    monkeypatch.setattr(part, method, failing)
    optimizer = torch.optim.SGD(watched.parameters(), lr=0.3)
    recorder = harness.Recorder(watched, optimizer=optimizer, census_every=5, evidence=True)
    with pytest.warns(UserWarning, match="evidence: switched off .*_foreach_copy_") as spoken, recorder:
        train(watched, recorder, optimizer)
    assert len(spoken) == 1
    for a, b in zip(plain.state_dict().values(), watched.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert recorder.history()["step"].unique().tolist() == [5, 10]
    assert set(recorder.history()["n"]) == {80}


def test_the_evidence_says_when_and_why_it_was_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    after_step, calls = StepMetrics._after_step, []

    def third_fails(self: StepMetrics, place: int) -> None:
        calls.append(place)
        if len(calls) == 3:
            raise ValueError("odd")
        after_step(self, place)

    monkeypatch.setattr(StepMetrics, "_after_step", third_fails)
    with harness.Recorder(model, optimizer=optimizer, evidence=True, census_every=5) as recorder:
        with pytest.warns(UserWarning, match="ValueError: odd"):
            train(model, recorder, optimizer)
        assert not optimizer._optimizer_step_post_hooks  # type: ignore[attr-defined]
    assert len(calls) == 3
    evidence = recorder.evidence()
    assert evidence.steps["step"].tolist() == [1, 2]
    assert evidence.error == "it was switched off after step 2 (ValueError: odd)"
    assert f"The evidence is incomplete: {evidence.error}." in str(recorder.diagnose())


def test_a_recorder_that_goes_on_leaves_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    with monkeypatch.context() as broken:
        broken.setattr(StepMetrics, "_before_step", failing)
        first = harness.Recorder(model, optimizer=optimizer, evidence=True)
        with pytest.warns(UserWarning, match="switched off"), first:
            train(model, first, optimizer)
    second = harness.Recorder(model, optimizer=optimizer, evidence=True, census_every=5)
    second.load_state_dict(first.state_dict())
    with second:
        train(model, second, optimizer)
    assert "switched off after step 0" in second.evidence().error


def test_that_nothing_is_missing_is_kept_with_a_run(tmp_path: Path) -> None:
    from harness.attribution.evidence import Evidence
    from harness.store.evidence import read_evidence, write_evidence

    steps = pd.DataFrame({"step": [1], "site": "a", "unit": 0})
    for error in ("", "it was switched off after step 1 (ValueError: odd)"):
        steps.attrs["error"] = error
        write_evidence(tmp_path, Evidence(steps, steps, steps)._asdict())
        assert Evidence(**(read_evidence(tmp_path) or {})).error == error


class Steps:
    """A listener of somebody else's."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def attach(self, guard: Guard) -> None:
        self.calls.append("attach")

    def detach(self) -> None:
        self.calls.append("detach")

    def step(self, loss: Tensor | float | None) -> None:
        self.calls.append("step")

    def census(self) -> None:
        self.calls.append("census")

    def state_dict(self) -> dict[str, Any]:
        return {"calls": list(self.calls)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.calls = list(state["calls"])


def test_a_listener_of_ones_own_is_called_and_has_its_state_saved() -> None:
    model, listener, other = net(), Steps(), Steps()
    recorder = ActivationRecorder(model, census_every=2)
    recorder.add_listener("mine", listener)
    with recorder:
        for _ in range(2):
            model(torch.randn(3, 5))
            recorder.step()
        with pytest.raises(RuntimeError, match="inside the block"):
            recorder.add_listener("late", Steps())
    assert listener.calls == ["attach", "step", "step", "census", "detach"]
    again = ActivationRecorder(model)
    again.add_listener("mine", other)
    again.load_state_dict(recorder.state_dict())
    assert other.calls == listener.calls
    with pytest.raises(ValueError, match="stream"):
        again.add_listener("stream", Steps())


def test_lazy_layers_may_be_there() -> None:
    model = nn.Sequential(nn.LazyLinear(7), nn.ReLU(), nn.Linear(7, 3))
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.3)
    with harness.Recorder(model, optimizer=optimizer, evidence=True, census_every=5) as recorder:
        train(model, recorder, optimizer)
    assert recorder.evidence().error == ""
