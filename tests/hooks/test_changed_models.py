"""Models that change while they are watched, and modules that are not what their class says."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as registry

import harness
from harness.activations.lookup import lookup
from harness.detector.verdict import last_census
from harness.remedies import leaky_swap, sugar


def net() -> nn.Sequential:
    torch.manual_seed(0)
    layer = nn.Linear(4, 8)
    with torch.no_grad():
        layer.bias[:3] = -50.0
    return nn.Sequential(layer, nn.ReLU())


X = torch.randn(20, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("before", [1, 3, 9])
def test_modules_that_come_are_counted_from_their_first_forward(before: int) -> None:
    model, hooks = net(), dict(registry._global_module_registration_hooks)
    with harness.Recorder(model, census_every=None) as recorder:
        for _ in range(before):
            model(X).sum().backward()
        model[1] = nn.LeakyReLU(0.1)
        model.append(nn.Linear(8, 3))
        model.append(nn.ReLU())
        for _ in range(6):
            model(X).sum().backward()
        census = recorder.census()
    assert registry._global_module_registration_hooks == hooks
    seen = census[census["unit"] >= 0].groupby("site")["n"].max()
    assert seen.to_dict() == {"1": 20 * before, "1#1": 120, "3": 120}
    sites = {site.name: (site.activation, site.single_producer) for site in recorder.sites}
    assert sites == {"1": ("relu", "0"), "1#1": ("leaky_relu", "0"), "3": ("relu", "2")}
    assert (census.loc[census["site"] == "1#1", "active"] == 120).all()


def by_insert(model: nn.Sequential, new: nn.Module) -> None:
    model.insert(2, new)


def by_a_dictionary(model: nn.Sequential, new: nn.Module) -> None:
    model._modules["1"] = new


def after_a_deletion(model: nn.Sequential, new: nn.Module) -> None:
    del model[1]
    model.append(new)


@pytest.mark.parametrize("put", [by_insert, by_a_dictionary, after_a_deletion])
def test_modules_that_come_past_torchs_registration(put: Callable[..., None]) -> None:
    model, new = net(), nn.LeakyReLU(0.1)
    with harness.Recorder(model, census_every=None) as recorder:
        for _ in range(20):
            model(X).sum().backward()
        put(model, new)
        for _ in range(6):
            model(X).sum().backward()
        census = recorder.census()
    rows = census[(census["unit"] >= 0) & (census["n"] < 520)]
    sites = {site.name: site.activation for site in recorder.sites}
    assert {(sites[name], n) for name, n in zip(rows["site"], rows["n"], strict=True)} >= {
        ("leaky_relu", 120)
    }


@pytest.mark.parametrize("before", [1, 3, 9])
def test_the_probe_sees_modules_that_come(before: int) -> None:
    model = net()
    with harness.Recorder(model, census_every=None, probe=X) as recorder:
        for _ in range(before):
            recorder.census()
        model[1] = nn.LeakyReLU(0.1)
        model.append(nn.Linear(8, 3))
        model.append(nn.ReLU())
        recorder.census()
        census = recorder.census()
    seen = census[(census["evidence"] == "probe") & (census["unit"] >= 0)].groupby("site")["n"].max()
    assert seen.to_dict() == {"1": 0, "1#1": 20, "3": 20}
    assert {site.name: site.single_producer for site in recorder.sites} == {"1": "0", "1#1": "0", "3": "2"}


def leaky(model: nn.Sequential) -> None:
    model[1] = nn.LeakyReLU(0.1)


def longer(model: nn.Sequential) -> None:
    model.append(nn.Linear(8, 6))
    model.append(nn.ReLU())


def wider(model: nn.Sequential) -> None:
    model[0], model[2] = nn.Linear(4, 12), nn.Linear(12, 8)


def shorter(model: nn.Sequential) -> None:
    del model[3]
    del model[2]


def renewed(model: nn.Sequential) -> None:
    model[2] = nn.Linear(8, 8)


@pytest.mark.parametrize("probe", [None, X])
@pytest.mark.parametrize("change", [leaky, longer, wider, shorter, renewed])
def test_a_model_that_changed_is_diagnosed(
    change: Callable[[nn.Sequential], None], probe: Tensor | None
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())
    for layer in (model[0], model[2]):
        assert isinstance(layer, nn.Linear)
        nn.init.constant_(layer.bias[:5].detach(), -50.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with harness.Recorder(model, optimizer=optimizer, census_every=5, probe=probe, evidence=True) as recorder:
        for step in range(20):
            if step == 9:
                change(model)
                optimizer.param_groups[0]["params"] = list(model.parameters())
            optimizer.zero_grad()
            loss = (model(X) - 1).square().mean()
            loss.backward()
            optimizer.step()
            recorder.step(loss=loss)
        told = recorder.diagnose()
    rows = last_census(recorder.history())
    dead = set(zip(*(rows.loc[rows["state"] == "dead", name] for name in ("site", "unit")), strict=True))
    assert set(zip(told.units["site"], told.units["unit"], strict=True)) == dead
    assert f"{len(dead)} of {((rows['unit'] >= 0) & (rows['n'] > 0)).sum()} units dead" in told.text
    if change is shorter:
        assert told.label == "unknown"
        assert "dead from the start, and the start could not be run again" in told.text
    elif change in (leaky, longer):
        assert told.label == "bias_init"
        assert set(told.units.loc[told.units["cause"] == "bias_init", "site"]) <= {"1", "3"}


def test_a_recorder_that_is_forgotten_leaves_nothing_behind() -> None:
    hooks = dict(registry._global_module_registration_hooks)
    model = net()
    harness.Recorder(model, census_every=None).attach()
    assert registry._global_module_registration_hooks == hooks
    forgotten = weakref.ref(model)
    del model
    gc.collect()
    assert forgotten() is None


def test_other_models_that_are_built_meanwhile_are_not_looked_at() -> None:
    model = net()
    with harness.Recorder(model, census_every=None) as recorder:
        other = nn.Sequential(nn.Linear(4, 2), nn.ReLU())
        for _ in range(2):
            other(X)
            model(X).sum().backward()
            recorder.step()
        assert [site.name for site in recorder.sites] == ["1"]
        assert not any(part._forward_hooks for part in other.modules())


def test_swapped_units_are_alive_while_they_are_watched() -> None:
    model = net()
    with harness.Recorder(model, census_every=None) as recorder:
        model(X).sum().backward()
        leaky_swap(model, X)
        for _ in range(3):
            model(X).sum().backward()
        census = recorder.census()
    swapped = census[census["site"] == "1#1"]
    assert swapped["state"].tolist()[:3] == ["always_on"] * 3
    assert set(swapped["n"]) == {60}, "its own looks at the batch count nothing"
    assert set(census.loc[census["site"] == "1", "n"]) == {20}
    assert "dead" not in swapped["state"].tolist()


def test_surrogate_gradients_leave_the_gate_a_relus() -> None:
    model = net()
    with harness.Recorder(model, census_every=None) as recorder:
        model(X).sum().backward()
        sugar(model)
        model(X).sum().backward()
        census = recorder.census()
    assert census.groupby("site")["n"].max().to_dict() == {"1": 20, "1#1": 20}
    assert census.loc[census["site"] == "1#1", "state"].tolist()[:3] == ["dead"] * 3


class Tilted(nn.ReLU):
    def forward(self, input: Tensor) -> Tensor:
        return F.leaky_relu(input, 0.1)


class Named(nn.ReLU):
    """A subclass that computes what its parent does."""


def test_a_subclass_that_computes_something_else_is_not_its_parent() -> None:
    model = nn.Sequential(nn.Linear(4, 8), Tilted(), nn.Linear(8, 8), Named())
    for layer in (model[0], model[2]):
        assert isinstance(layer, nn.Linear)
        nn.init.constant_(layer.bias, -100.0)
    report = harness.scan(model, X)
    states = report.units.groupby("site")["state"].unique()
    assert {name: list(found) for name, found in states.items()} == {
        "1:leaky_relu": ["always_on"],
        "3": ["dead"],
    }
    assert lookup(Tilted()) is None


@pytest.mark.parametrize(("bounds", "state"), [((0.0, 0.3), "always_on"), ((0.0, 0.0), "dead")])
def test_a_random_slope_is_closed_only_if_it_is_always_0(bounds: tuple[float, float], state: str) -> None:
    layer = nn.Linear(4, 8)
    nn.init.constant_(layer.bias, -100.0)
    assert set(harness.scan(nn.Sequential(layer, nn.RReLU(*bounds)), X).units["state"]) == {state}


def test_a_norm_over_whole_images_keeps_channels_as_units() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.LayerNorm([8, 6, 6]), nn.ReLU())
    norm = model[1]
    assert isinstance(norm, nn.LayerNorm)
    nn.init.zeros_(norm.weight[2].detach())
    nn.init.constant_(norm.bias[2].detach(), -1.0)
    units = harness.scan(model, torch.randn(10, 3, 8, 8)).units
    assert len(units) == 8
    assert set(units["n"]) == {360}
    assert units.loc[units["state"] == "dead", "unit"].tolist() == [2]


class Clamped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 8)
        self.register_buffer("floor", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        z = self.layer(x)
        floor = self.get_buffer("floor")
        return z.clamp(min=floor) + torch.clamp(z, torch.tensor(0.0)) + z.clamp_min(torch.tensor(-1.0))


def test_a_clamp_to_a_tensor_of_zeros_is_a_relu() -> None:
    model = Clamped()
    nn.init.constant_(model.layer.bias, -100.0)
    units = harness.scan(model, X).units
    assert units["site"].unique().tolist() == [":clamp"]
    assert set(units["n"]) == {40}, "the two of them; the clamp to -1 is none"
    assert set(units["state"]) == {"dead"}
