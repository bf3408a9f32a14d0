"""Trainings that diverge: what is not finite is counted and named, no census is called earlier than it is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import harness
from harness.detector.verdict import verdict


def trained(
    model: nn.Module,
    lr: float,
    *,
    scale: float = 1.0,
    probe: bool = False,
    every: int = 20,
    steps: int = 40,
    spoilt: int = 0,
) -> harness.Recorder:
    draw = torch.Generator().manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    watched = torch.randn(200, 10, generator=torch.Generator().manual_seed(9)) if probe else None
    recorder = harness.Recorder(model, optimizer=optimizer, census_every=every, evidence=True, probe=watched)
    with recorder:
        for step in range(1, steps + 1):
            x = torch.randn(32, 10, generator=draw)
            if spoilt and step >= spoilt:
                x = x * float("nan")
            loss = (model(scale * x)[:, 0] - (x[:, 0] * x[:, 1]).abs()).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(loss=loss)
    return recorder


def net(*, reparametrised: bool = False, norm: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    wrap = nn.utils.parametrizations.weight_norm if reparametrised else lambda layer: layer
    norms = [nn.BatchNorm1d(40)] if norm else []
    first, second = wrap(nn.Linear(10, 40)), wrap(nn.Linear(40, 40))
    return nn.Sequential(first, *norms, nn.ReLU(), second, nn.ReLU(), nn.Linear(40, 1))


@pytest.mark.filterwarnings("ignore:.*grad_norm is not known")
def test_units_that_are_not_finite_are_in_the_count() -> None:
    recorder = trained(net(reparametrised=True), 2.0, probe=True)
    census = recorder.census()
    states = census.loc[census["evidence"] == "probe", "state"].value_counts()
    assert set(states.index) == {"dead", "non_finite"}
    found = recorder.diagnose()
    assert found.text.startswith("Training diverged at step ")
    assert f" after it: {states['dead']} of 80 units dead" in found.text
    assert f"{states['non_finite']} of the 80 had NaN or infinite pre-activations" in found.text
    assert "At the last census before, step 0, 0 of 80 units were dead; at step 40" in found.text
    assert "the held-out ones do not" not in found.text
    assert found.label == "step_size"


@pytest.mark.filterwarnings("ignore:.*grad_norm is not known")
@pytest.mark.parametrize("reparametrised", [False, True])
def test_a_census_after_the_divergence_is_not_said_to_be_before(reparametrised: bool) -> None:
    recorder = trained(net(reparametrised=reparametrised), 2.0)
    text = recorder.diagnose().text
    assert "The last census before" not in text
    assert "none was taken before that" in text
    assert " of 7 units" not in text
    said = verdict(recorder.history(), diverged_at=5).text
    assert "last good census" not in said


def test_units_none_of_which_is_finite_were_observed() -> None:
    text = trained(net(), 3.0).diagnose().text
    assert "all 80 units had NaN or infinite pre-activations (n = 640 on the training stream)" in text
    assert "Nothing was observed" not in text


def test_a_census_before_the_divergence_is_said_to_be_so() -> None:
    text = trained(net(), 0.01, every=5, steps=10, spoilt=6).diagnose().text
    assert text.startswith(
        "Training diverged at step 6. The last census before that, of step 5: 0 of 80 units"
    )


def test_a_loss_that_came_back_had_not_diverged() -> None:
    """A scaler skips the step; so does anybody who looks at the loss."""
    model, draw = net(), torch.Generator().manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with harness.Recorder(model, optimizer=optimizer, census_every=10, evidence=True) as recorder:
        for step in range(20):
            x = torch.randn(32, 10, generator=draw)
            loss: Tensor = model(x).square().mean() * (float("inf") if step == 4 else 1.0)
            optimizer.zero_grad()
            loss.backward()
            if loss.isfinite():
                optimizer.step()
            recorder.step(loss=loss)
    assert "diverged" not in recorder.diagnose().text


def test_inputs_that_a_batch_norm_makes_harmless_are_not_blamed() -> None:
    assert trained(net(norm=True), 3.0, scale=75.0).diagnose().label == "step_size"
    assert trained(net(), 0.3, scale=75.0).diagnose().label == "input_offset"
