"""SUGAR, leaky swaps, lifted biases, shrinking."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nets import NETS, Functional, mlp, trained
from torch import Tensor, nn

import harness
from harness.remedies import PartlyLeaky, Sugar, bias_lift, leaky_swap, shrink_perturb, sugar
from harness.remedies.surrogate import b_silu


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
def test_sugar_is_relu_there_and_its_surrogate_back(kind: torch.dtype) -> None:
    z = torch.cat((torch.linspace(-60, 60, 4001), torch.tensor([0.0, -0.0, math.inf, -math.inf]))).to(kind)
    assert torch.equal(Sugar()(z), F.relu(z))
    assert Sugar()(torch.tensor([math.nan])).isnan()
    z = z[:-2].clone().requires_grad_()
    weights = torch.randn(len(z), dtype=kind)
    (Sugar()(z) * weights).sum().backward()
    other = z.detach().clone().requires_grad_()
    (b_silu(other, 1.67) * weights).sum().backward()
    assert z.grad is not None
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 0.05}[kind]
    torch.testing.assert_close(z.grad, other.grad, rtol=tolerance, atol=tolerance)


def test_a_dead_unit_has_a_gradient_and_is_still_told_as_dead() -> None:
    model: Any = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    nn.init.constant_(model[0].bias, -2.0)
    assert [act.kind for act in sugar(model)] == ["sugar"]
    x = torch.rand(8, 3) * 0.1
    with harness.Recorder(model, census_every=None) as recorder:
        model(x).sum().backward()
        census = recorder.census()
    assert model[0].weight.grad is not None
    assert (model[0].weight.grad.abs().sum(1) > 0).all()
    assert census["state"].eq("dead").all()
    assert (census["grad_rms"] > 0).all()


def test_only_silent_units_become_leaky() -> None:
    model, _, x = trained("plain_conv", 1, torch.optim.SGD)
    before = model(x)
    silent = [(model[: k + 1](x).amax((0, 2, 3)) == 0) for k in (1, 3)]
    acts = leaky_swap(model, x, slope=0.25)
    assert [act.units for act in acts] == [int(s.sum()) for s in silent if s.any()]
    for k, dead in zip((1, 3), silent, strict=True):
        act = model[k]
        if dead.any():
            assert isinstance(act, PartlyLeaky)
            assert torch.equal(act.slope, torch.where(dead, 0.25, 0.0))
    assert not torch.equal(model(x), before)
    units = harness.scan(model, x).units
    assert (units[units["site"] == "1"]["state"] != "dead").all()


def test_partly_leaky_is_relu_where_its_slope_is_0() -> None:
    act = PartlyLeaky(3)
    z = torch.randn(50, 3, 4, 4)
    z[0, 0, 0, 0] = -math.inf
    assert torch.equal(act(z), F.relu(z))
    act.slope[1] = 0.3
    z[0, 0, 0, 0] = 0
    expected = torch.stack((F.relu(z[:, 0]), F.leaky_relu(z[:, 1], 0.3), F.relu(z[:, 2])), 1)
    assert torch.equal(act(z), expected)
    z.requires_grad_()
    act(z).sum().backward()
    slopes = torch.tensor([0.0, 0.3, 0.0]).view(1, 3, 1, 1)
    assert torch.equal(z.grad, torch.where(z > 0, 1.0, slopes))  # type: ignore[arg-type]


def test_leaky_swap_all_at_once_above_a_share_and_errors() -> None:
    model: Any = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
    nn.init.constant_(model[0].bias, 9)
    with torch.no_grad():
        model[0].bias[0] = -99
    x = torch.randn(6, 2)
    assert leaky_swap(model, x, above=0.25) == []
    assert [act.units for act in leaky_swap(model, x, above=0.2, units="all")] == [4]
    cases: list[tuple[Any, str]] = [({"slope": 0}, "slope"), ({"above": 1}, "above"), ({"units": 3}, "units")]
    for options, words in cases:
        with pytest.raises(ValueError, match=f"{words}: expected"):
            leaky_swap(model, x, **options)
    with pytest.raises(ValueError, match=r"nn\.ReLU"):
        leaky_swap(Functional(), torch.randn(2, 1, 12, 12))
    with pytest.raises(ValueError, match=r"nn\.ReLU"):
        sugar(Functional())


@pytest.mark.parametrize("share", [0.01, 0.25, 1.0])
@pytest.mark.parametrize("name", ["mlp", "normed", "functional", "sequence"])
def test_silent_units_open_on_the_share_that_was_asked_for(name: str, share: float) -> None:
    model, optimizer, x = trained(name, 3, torch.optim.Adam)
    before, open_before = {n: p.clone() for n, p in model.named_parameters()}, opened(model, x)
    sites = [site for site in NETS[name][2] if site in open_before]
    acts = bias_lift(model, optimizer, x, share=share, sites=sites)
    after = opened(model, x)
    silent = {site: open_before[site] == 0 for site in sites}
    first = sites[0]
    n = harness.scan(model, x).units.set_index("site").loc[first, "n"].iloc[0]
    assert silent[first].any()
    assert acts[0].units == silent[first].sum()
    assert (after[first][silent[first]] == max(1, math.ceil(share * n))).all()
    assert (after[first][~silent[first]] == open_before[first][~silent[first]]).all()
    assert all((units > 0).all() for site, units in after.items() if site in sites)
    assert {n for n, p in model.named_parameters() if not torch.equal(p, before[n])} <= {
        n for n in before if n.endswith("bias")
    }


def opened(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """On how many inputs each unit is open, in training mode as the lift sees it (dropout apart)."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    state = {n: v.clone() for n, v in model.state_dict().items()}
    with harness.Recorder(model, census_every=None) as recorder:
        model(x)
        census = recorder.census()
    model.load_state_dict(state)
    sites = census.groupby("site", sort=False)
    return {str(site): torch.tensor(rows["active"].to_numpy()) for site, rows in sites}


def test_moments_of_lifted_units_are_forgotten() -> None:
    model, optimizer, x = trained("mlp", 3, torch.optim.Adam)
    silent = (model[:2](x) == 0).all(0)
    for p in (model[0].weight, model[0].bias):
        optimizer.state[p]["exp_avg"].fill_(1.0)
    bias_lift(model, optimizer, x)
    for p in (model[0].weight, model[0].bias):
        moments = optimizer.state[p]["exp_avg"].view(16, -1)
        assert torch.equal(moments.eq(0).all(1), silent)
        assert torch.equal(moments.eq(1).all(1), ~silent)
        assert optimizer.state[p]["step"] == 3


class Half(nn.Module):
    """An activation on some of a layer's units, in another order."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(2, 4), nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.into(x)[:, [3, 1]]))


def test_a_lift_finds_the_units_of_the_layer() -> None:
    model, x = Half(), torch.rand(6, 2)
    with torch.no_grad():
        model.into.bias.copy_(torch.tensor([-9.0, 9.0, 9.0, -9.0]))
    assert [event.units for event in bias_lift(model, None, x)] == [1]
    assert model.into.bias[:3].tolist() == [-9, 9, 9]
    assert (model.into(x)[:, 3] > 0).sum() == 1


def test_what_cannot_be_lifted_is_told() -> None:
    with pytest.raises(ValueError, match=r"1 cannot be lifted: elu is not silent below 0"):
        bias_lift(nn.Sequential(nn.Linear(2, 2), nn.ELU(), nn.Linear(2, 1)), None, torch.zeros(2, 2))
    with pytest.raises(ValueError, match="has no bias"):
        bias_lift(nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU()), None, torch.zeros(2, 2))
    with pytest.raises(ValueError, match="share: expected"):
        bias_lift(mlp(), None, torch.zeros(2, 9), share=0)


def test_shrinking_is_a_line_of_arithmetic() -> None:
    torch.manual_seed(0)
    model, fresh = (NETS["functional"][0]() for _ in range(2))
    before = {n: p.clone() for n, p in model.named_parameters()}
    other = dict(fresh.named_parameters())
    shrink_perturb(model, fresh, shrink=0.7, noise=0.2)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), 0.7 * before[name] + 0.2 * other[name].detach())
    for options, words in (({"shrink": 1.1, "noise": 0}, "shrink"), ({"shrink": 1, "noise": -1}, "noise")):
        with pytest.raises(ValueError, match=f"{words}: expected"):
            shrink_perturb(model, fresh, **options)
    with pytest.raises(ValueError, match="fresh: expected a parameter"):
        shrink_perturb(model, mlp(), shrink=1, noise=1)
