"""Births: chance is told from biases and weights that no initialisation draws, unit by unit."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from small_trainings import stepped
from torch import Tensor, nn

import harness


def chain(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 3))


def diagnosed(
    model: nn.Module, x: Callable[[int], Tensor], *, probe: Tensor | None = None, every: int = 10
) -> harness.Diagnosis:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    draw = torch.Generator().manual_seed(0)
    recorder = harness.Recorder(model, optimizer=optimizer, census_every=every, probe=probe, evidence=True)
    with recorder:
        for step in range(20):
            batch = x(step)
            target = torch.randint(0, 3, (len(batch),), generator=draw)
            loss = nn.functional.cross_entropy(model(batch), target)
            stepped(recorder, optimizer, loss)
    return recorder.diagnose()


def noise(step: int) -> Tensor:
    return torch.randn(64, 20, generator=torch.Generator().manual_seed(step))


@torch.no_grad()
def low_biases(model: Any, units: int) -> None:
    model[0].bias[:units] = -50.0


@torch.no_grad()
def zero_rows(model: Any, units: int) -> None:
    model[2].weight[:units] = 0.0
    model[2].bias[:units] = -0.01


@torch.no_grad()
def negative_rows(model: Any, units: int) -> None:
    model[2].weight[:units] = -model[2].weight[:units].abs() - 0.01
    model[2].bias[:units] = -0.1


@pytest.mark.parametrize("probe", [False, True])
@pytest.mark.parametrize(
    ("change", "units", "label", "says"),
    [
        (low_biases, 4, "none", "4 by their bias"),
        (low_biases, 18, "bias_init", "18 by their bias"),
        (zero_rows, 5, "none", "5 since all their incoming weights are 0"),
        (zero_rows, 20, "weight_init", "20 since all their incoming weights are 0"),
        (negative_rows, 20, "weight_init", "by their weights"),
    ],
)
def test_what_no_chance_does_is_not_called_chance(
    change: Callable[[Any, int], None], units: int, label: str, says: str, probe: bool
) -> None:
    torch.manual_seed(0)
    model = chain(20, 64, 64)
    change(model, units)
    found = diagnosed(model, noise, probe=torch.randn(600, 20) if probe else None)
    assert found.label == label
    assert says in found.text
    assert "by chance" not in found.text


def test_ordinary_draws_in_a_deep_network_are_chance() -> None:
    torch.manual_seed(1)
    model = chain(20, *[24] * 10)
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    found = diagnosed(model, lambda step: noise(step) + 0.6, probe=noise(99) + 0.6)
    assert len(found.units) > 5
    assert found.label in ("none", "weight_init")
    assert "by chance, as the weights of any initialisation fall" in found.text


# --- a layer that is once handed nothing --------------------------------------------------------------


class Routed(nn.Module):
    """Rows are routed to one of two experts, which may get none."""

    def __init__(self, empty: Callable[[int], bool]) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(20, 24), nn.Linear(20, 24)
        self.head, self.empty, self.step = nn.Linear(24, 3), empty, -1
        with torch.no_grad():
            self.two.bias.fill_(-30.0)

    def forward(self, x: Tensor) -> Tensor:
        self.step += 1
        split = 0 if self.empty(self.step) else len(x) // 2
        return self.head(torch.cat([torch.relu(self.one(x[split:])), torch.relu(self.two(x[:split]))]))


@pytest.mark.parametrize(
    "empty",
    [lambda step: step == 0, lambda step: step == 3, lambda step: step % 2 == 1],
    ids=["first", "once", "often"],
)
def test_a_layer_without_rows_keeps_its_evidence(empty: Callable[[int], bool]) -> None:
    torch.manual_seed(0)
    model = Routed(empty)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with harness.Recorder(model, optimizer=optimizer, census_every=10, evidence=True) as recorder:
        for step in range(20):
            loss = model(noise(step)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(loss=loss)
        births = recorder.evidence().units
    assert births.filter(like="birth_").notna().all(axis=None)
    assert recorder.diagnose().label == "bias_init"


# --- births without a probe ---------------------------------------------------------------------------


def test_without_a_probe_the_replayed_start_tells_who_was_born_dead() -> None:
    torch.manual_seed(0)
    model: Any = chain(20, 64, 64)
    low_biases(model, 20)

    def overwrite(step: int) -> Tensor:
        if step == 4:
            with torch.no_grad():
                model[0].bias[20:50] = -50.0  # these have been alive
        return noise(step)

    found = diagnosed(model, overwrite)
    born = found.units[found.units["site"].eq("1") & found.units["born"]]
    assert set(born["unit"]) == set(range(20))
    died = found.units[found.units["site"].eq("1") & ~found.units["born"]]
    assert set(range(20, 50)) <= set(died["unit"])
    assert "born dead" in found.text


def test_without_a_probe_the_verdict_and_explain_say_which_census() -> None:
    from harness.detector.verdict import verdict

    torch.manual_seed(0)
    model: Any = chain(20, 64)
    low_biases(model, 8)
    with harness.Recorder(model, census_every=7) as recorder:
        for step in range(14):
            model(noise(step))
            recorder.step()
    text = verdict(recorder.history()).text
    assert "8 were dead at the first census, step 7." in text
    assert "born dead" not in text
    assert "dead at the first census, step 7" in recorder.explain("1", 0)
    assert "born dead" not in recorder.explain("1", 0)


def test_rows_that_are_pruned_are_not_said_to_be_fed_by_nothing() -> None:
    from torch.nn.utils import prune

    torch.manual_seed(0)
    model: Any = chain(20, 64, 64)
    mask = torch.ones_like(model[2].weight)
    mask[:20] = 0.0
    prune.custom_from_mask(model[2], "weight", mask)
    nn.init.zeros_(model[2].bias)
    found = diagnosed(model, noise, probe=torch.randn(600, 20))
    assert "20 since all their incoming weights are 0" in found.text
    assert "nothing that varies comes in from below" not in found.text
    assert found.label == "weight_init"


@pytest.mark.parametrize(("shift", "meaning"), [(12.0, "too high"), (-12.0, "too low")])
def test_a_bias_may_lie_above_a_bounded_activation(shift: float, meaning: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 20), nn.ReLU6(), nn.Linear(20, 20), nn.ReLU6(), nn.Linear(20, 3))
    with torch.no_grad():
        model[2].get_parameter("bias").add_(shift)
    found = diagnosed(model, noise, probe=noise(99))
    assert found.label == "bias_init"
    assert f"the biases were {meaning} from the start" in found.cause
    assert found.next_step.startswith(
        "Draw the biases around 0" if shift > 0 else "Draw the biases at 0 or above"
    )


def test_one_unit_that_stops_all_decides_among_many_that_are_dead_by_chance() -> None:
    torch.manual_seed(0)
    x = torch.rand(400, 3)
    model = nn.Sequential(
        nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1), nn.ReLU()
    )
    nn.init.constant_(model[4].get_parameter("bias"), -3.0)
    optimizer = torch.optim.Adam(model.parameters(), 5e-4)
    with harness.Recorder(model, optimizer=optimizer, census_every=5, evidence=True) as recorder:
        for _ in range(20):
            stepped(recorder, optimizer, (model(x) - 1).square().mean())
    found = recorder.diagnose()
    assert found.units["cause"].eq("chance").mean() > 0.8
    assert found.label == "bias_init", found


def test_units_of_several_layers_that_are_not_closed_by_chance() -> None:
    """Few of many, in an order of layers that is not that of their numbers."""
    torch.manual_seed(0)
    hidden = [part for _ in range(3) for part in (nn.Linear(64, 64), nn.ReLU())]
    model = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), *hidden, nn.Linear(64, 3))
    with torch.no_grad():
        model[2].get_parameter("bias")[:2] -= 30
        model[4].get_parameter("bias")[:5] -= 30
    x = torch.rand(400, 3)
    found = diagnosed(model, lambda _: x)
    assert found.units["cause"].eq("bias_init").sum() == 7
    assert found.label in ("weight_init", "bias_init", "input_offset"), found
