"""Auto in a loop of one's own: it acts on the diagnosis, and leaves no trace in counts or evidence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import harness
from harness.remedies import Auto, RemedyEvent
from harness.remedies.chooser import SLOWEST

X = torch.randn(128, 8, generator=torch.Generator().manual_seed(0))
Y = (X.sum(1) > 0).long()
STEPS = 40


def network(bias: float) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))
    nn.init.constant_(model[0].bias, bias)  # type: ignore[arg-type]
    return model


def trained(
    model: nn.Module, lr: float = 0.05, decay: float = 0.0, restart: int = -1, **options: Any
) -> tuple[list[RemedyEvent], harness.Recorder, torch.optim.Optimizer]:
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, weight_decay=decay)
    recorder = harness.Recorder(model, optimizer=optimizer, census_every=5, evidence=True)
    found: list[RemedyEvent] = []
    with recorder:
        remedy = Auto(model, optimizer, recorder, every=5, **options)
        for step in range(STEPS):
            if step == restart:
                state, remedy = remedy.state_dict(), Auto(model, optimizer, recorder, every=5, **options)
                remedy.load_state_dict(state)
            x, y = X[step % 2 :: 2], Y[step % 2 :: 2]
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            recorder.step(loss=loss)
            found += remedy.step(x)
    return found, recorder, optimizer


def parameters(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_units_born_dead_by_their_biases_are_lifted() -> None:
    events, recorder, _ = trained(network(-30.0))
    assert (events[0].kind, events[0].site) == ("auto", "")
    assert "cause bias_init" in events[0].detail
    assert "bias_lift" in events[0].detail
    assert [event.kind for event in events[1:]].count("bias_lift") >= 1
    last = recorder.census()
    assert (last["state"] == "dead").mean() < 0.1


def test_a_healthy_network_is_left_alone() -> None:
    model = network(0.1)
    events, _, _ = trained(model)
    alone = network(0.1)
    trained(alone, above=0.99)
    assert events == []
    assert torch.equal(parameters(model), parameters(alone))


def test_its_own_acts_are_no_surgery_and_its_passes_count_nothing() -> None:
    events, recorder, _ = trained(network(-30.0))
    assert events
    found = recorder.diagnose()
    assert "surgery" not in set(found.events["label"])
    history = recorder.history()
    assert history[history["site"].eq("1")].groupby("step")["n"].first().tolist() == [320] * 8


def test_what_has_no_effect_is_followed_by_the_next_and_the_end_is_said_once() -> None:
    table = {"unknown": (("no_decay",), ("lower_rate",))}  # there is no decay, and a rate brings no unit back
    events, _, optimizer = trained(network(-30.0), table=table)
    assert [event.kind for event in events] == [*("auto", "lower_rate") * SLOWEST, "auto"]
    assert "nothing that is left to try" in events[-1].detail
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05 / 3**SLOWEST)


def test_decay_is_switched_off() -> None:
    table = dict.fromkeys(("unknown", "decay", "bias_init", "step_size"), (("no_decay", "bias_lift"),))
    events, _, optimizer = trained(network(-30.0), decay=0.01, table=table)
    assert optimizer.param_groups[0]["weight_decay"] == 0.0
    assert "weight decay 0.01 switched off" in [event.detail for event in events]


@pytest.mark.parametrize("restart", [5, 12, 30])
def test_it_goes_on_from_its_state(restart: int) -> None:
    one, two = network(-30.0), network(-30.0)
    whole, _, _ = trained(one, lr=2.0)
    torn, _, _ = trained(two, lr=2.0, restart=restart)
    assert whole == torn
    assert torch.equal(parameters(one), parameters(two))


def test_it_says_what_it_needs() -> None:
    model = network(0.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"recorder: expected harness\.Recorder\(.*evidence=True"):
        Auto(model, optimizer, harness.Recorder(model, optimizer=optimizer))
    recorder = harness.Recorder(model, optimizer=optimizer, evidence=True)
    with pytest.raises(ValueError, match="share: expected a number above 0"):
        Auto(model, optimizer, recorder, share=0.0)
    with pytest.raises(ValueError, match="above: expected"):
        Auto(model, optimizer, recorder, above=1.0)
