"""Models of which only parts are called: their inputs, births and shares, as if there were a forward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import harness


class Agent(nn.Module):
    """Has no forward of its own, but can be given one."""

    def __init__(self, bias: float = 0.0, *, hidden: bool = False) -> None:
        super().__init__()
        layer = nn.Linear(6, 32)
        nn.init.constant_(layer.bias, bias)
        self.trunk = nn.Sequential(layer, nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
        self.actor, self.critic = nn.Linear(32, 2), nn.Linear(32, 1)
        self.hidden = hidden

    def act(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.trunk(x)
        if self.hidden:
            h = F.softplus(h)
        return self.actor(h), self.critic(h)


class Whole(Agent):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return super().act(x)

    def act(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self(x)


def train(agent: Agent, offset: float = 0.0, record: bool = True) -> tuple[harness.Recorder, list[float]]:
    optimizer = torch.optim.SGD(agent.parameters(), 1e-4)
    draw = torch.Generator().manual_seed(1)
    recorder = harness.Recorder(agent, optimizer=optimizer, census_every=5, evidence=record)
    if record:
        recorder.__enter__()
    losses = []
    for _ in range(15):
        with torch.no_grad():
            agent.act(torch.randn(1, 6, generator=draw) + offset)  # an action is chosen
        logits, value = agent.act(torch.randn(32, 6, generator=draw) + offset)
        loss = logits.square().mean() + value.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if record:
            recorder.step(loss=loss)
        losses.append(loss.item())
    if record:
        recorder.__exit__(None, None, None)
    return recorder, losses


def agent(cls: type[Agent] = Agent, bias: float = 0.0, *, hidden: bool = False) -> Agent:
    torch.manual_seed(0)
    return cls(bias, hidden=hidden)


@pytest.mark.parametrize(("offset", "bias", "label"), [(30.0, 0.0, "input_offset"), (0.0, -9.0, "bias_init")])
def test_parts_tell_what_a_forward_tells(offset: float, bias: float, label: str) -> None:
    parts, whole = (train(agent(cls, bias), offset)[0].diagnose() for cls in (Agent, Whole))
    assert parts.label == whole.label == label
    assert parts.units.equals(whole.units)
    assert "incomplete" not in parts.text


def test_parts_have_the_evidence_of_a_forward() -> None:
    parts, whole = (train(agent(cls), 3.0)[0].evidence() for cls in (Agent, Whole))
    assert parts.units.equals(whole.units)
    assert parts.layers.equals(whole.layers)
    both = [one.steps.drop(columns=["output_rms", "output_grad_norm"]) for one in (parts, whole)]
    assert both[0].equals(both[1])  # which output of a part is the model's is not known
    assert not parts.error


def test_the_training_is_not_changed_by_a_bit() -> None:
    assert train(agent())[1] == train(agent(), record=False)[1]


def test_what_is_made_between_parts_is_the_reason_why_nothing_is_known() -> None:
    diagnosis = train(agent(bias=-9.0, hidden=True))[0].diagnose()
    assert diagnosis.label == "unknown"
    assert "actor is handed what was made outside of any part, of parameters" in diagnosis.text
    assert "give the model a forward()" in diagnosis.text


def test_a_forward_that_trains_takes_the_place_of_parts() -> None:
    model = agent(Whole)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    with harness.Recorder(model, optimizer=optimizer, census_every=2, evidence=True) as recorder:
        for _ in range(4):
            model.trunk(torch.full((8, 6), 50.0)).sum().backward()  # a warm-up, say
            model(torch.randn(8, 6))[0].sum().backward()
            optimizer.step()
            recorder.step()
    evidence = recorder.evidence()
    assert not evidence.error
    assert evidence.steps["input_rms"].max() < 2
    assert evidence.layers["input_rms"].iloc[0] < 2


def test_outputs_of_several_calls_meet_in_one_forward() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU())
            self.join = nn.Bilinear(16, 16, 8)
            self.act = nn.ReLU()

    torch.manual_seed(0)
    model = Pair()
    nn.init.constant_(model.join.bias, -50.0)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    with harness.Recorder(model, optimizer=optimizer, census_every=2, evidence=True) as recorder:
        for _ in range(4):
            a, b = (model.encoder(torch.randn(16, 4)) for _ in range(2))
            model.act(model.join(a, b)).sum().backward()
            optimizer.step()
            recorder.step()
    evidence = recorder.evidence()
    assert not evidence.error
    born = evidence.units[evidence.units["site"] == "act"]
    assert (born["rate_then"] == 0).all()
    assert recorder.diagnose().label == "bias_init"


@pytest.mark.filterwarnings("ignore:.*some calls are not counted")
@pytest.mark.parametrize("transform", [torch.func.vmap, torch.func.grad], ids=["vmap", "grad"])
def test_what_is_called_under_a_transform_is_neither_mistaken_nor_an_obstacle(transform: Any) -> None:
    """A gradient penalty by torch.func has the same inputs; those under vmap are not told from members."""
    agent = Agent()
    optimizer = torch.optim.SGD(agent.parameters(), 1e-4)
    draw = torch.Generator().manual_seed(1)
    with harness.Recorder(agent, optimizer=optimizer, census_every=5, evidence=True) as recorder:
        for _ in range(6):
            x = torch.randn(32, 6, generator=draw) + 3.0
            loss = agent.act(x)[0].square().mean()
            loss = loss + transform(lambda one: agent.act(one)[1].sum())(x).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(loss=loss)
    evidence = recorder.evidence()
    assert evidence.error == ""
    assert evidence.steps["input_mean"].between(2.5, 3.5).all()
    assert evidence.units["spread"].notna().all()
