"""Closed forms of dying ReLUs, measured through the public API (letters: the facts they check)."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor, nn

import harness


def layer(weight: Tensor, bias: float = 0.0) -> nn.Sequential:
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        linear.weight.copy_(weight)
        linear.bias.fill_(bias)
    return nn.Sequential(linear, nn.ReLU())


def equicorrelated(n: int, cosine: float) -> Tensor:
    """n unit vectors with all pairwise cosines equal."""
    return torch.cat([torch.full((n, 1), math.sqrt(cosine)), math.sqrt(1 - cosine) * torch.eye(n)], 1)


def orthant(n: int, cosine: float) -> float:
    """Fact B: P(dead) for isotropic Gaussian weights on n inputs with equal cosines."""
    k = math.sqrt(cosine / (1 - cosine))
    value, _ = integrate.quad(lambda z: stats.norm.pdf(z) * stats.norm.cdf(-z * k) ** n, -12, 12, limit=400)
    return value


@pytest.mark.parametrize("draw", [torch.randn, lambda *s: torch.randn(*s).sign() * torch.rand(*s) ** 3])
def test_a_symmetric_inputs_kill_with_2_to_the_minus_n(draw: Callable[..., Tensor]) -> None:
    torch.manual_seed(0)
    n, shares = 5, []
    for _ in range(60):
        weight = draw(2000, 40).abs() + 0.1  # any weight law, any dimension
        shares.append(harness.scan(layer(weight), draw(n, 40)).dead_fraction)
    error = np.std(shares) / math.sqrt(len(shares))
    assert abs(np.mean(shares) - 2.0**-n) < 4 * error


@pytest.mark.parametrize(("n", "cosine", "known"), [(9, 0.5, 0.1), (100, 0.8, 0.1100), (1000, 0.9, 0.1416)])
def test_b_orthant_probability(n: int, cosine: float, known: float) -> None:
    torch.manual_seed(1)
    assert orthant(n, cosine) == pytest.approx(known, abs=1e-4)
    units = 20_000
    found = harness.scan(layer(torch.randn(units, n + 1)), equicorrelated(n, cosine)).dead_fraction
    assert abs(found - known) < 4 * math.sqrt(known * (1 - known) / units)


def test_c_depth_law() -> None:
    torch.manual_seed(2)
    width, depth, n = 1024, 10, 1000
    sizes = [n + 1, *[width] * depth]
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        linear = nn.Linear(fan_in, fan_out)
        nn.init.normal_(linear.weight, std=math.sqrt(2 / fan_in))
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    units = harness.scan(nn.Sequential(*layers), equicorrelated(n, 0.4)).units
    by_layer = units.groupby("site", sort=False)
    dead = by_layer["state"].apply(lambda s: (s == "dead").mean()).to_numpy()
    on = by_layer["state"].apply(lambda s: (s == "always_on").mean()).to_numpy()
    for number, known in ((2, 0.0022), (3, 0.0090), (5, 0.0346), (8, 0.0834), (10, 0.1148)):
        assert dead[number - 1] == pytest.approx(known, abs=0.025)
        assert on[number - 1] == pytest.approx(known, abs=0.025)
    np.testing.assert_allclose(by_layer["rate"].mean(), 0.5, atol=0.04)


def test_d_gaussian_pre_activations() -> None:
    torch.manual_seed(3)
    units, n, ratio = 4000, 1000, -3.0
    model = layer(2.0 * torch.eye(units), 2.0 * ratio)  # every unit has an input of its own
    found = harness.scan(model, torch.randn(n, units))
    rate = stats.norm.cdf(ratio)
    assert found.units["rate"].mean() == pytest.approx(rate, rel=0.03)
    dead = stats.norm.cdf(-ratio) ** n
    assert dead == pytest.approx(0.2590, abs=2e-4)
    assert abs(found.dead_fraction - dead) < 4 * math.sqrt(dead * (1 - dead) / units)


@pytest.mark.parametrize(("bias", "rate"), [(-1, 0.2398), (-2, 0.0786), (-3, 0.0170)])
def test_e_he_layer_with_a_bias(bias: float, rate: float) -> None:
    torch.manual_seed(4)
    weight = torch.randn(256, 4096) * math.sqrt(2 / 4096)
    units = harness.scan(layer(weight, bias), torch.randn(2000, 4096)).units
    assert units["rate"].mean() == pytest.approx(rate, rel=0.02)


@pytest.mark.parametrize(("width", "known"), [(2, 0.92492), (3, 0.6993), (5, 0.2486), (10, 0.0088)])
def test_f_born_dead_networks(width: int, known: float) -> None:
    """Many narrow nets side by side: one grouped convolution of kernel 1 per layer."""
    torch.manual_seed(5)
    nets, hidden = 4000, 9
    assert 1 - (1 - 2.0**-width) ** hidden == pytest.approx(known, abs=1e-4)
    layers: list[nn.Module] = []
    for number in range(hidden):
        groups = nets if number else 1
        conv = nn.Conv1d(width * nets if number else 1, width * nets, 1, groups=groups, bias=False)
        nn.init.normal_(conv.weight)
        layers += [conv, nn.ReLU()]
    units = harness.scan(nn.Sequential(*layers), torch.ones(1, 1, 1)).units
    dead = (units["state"] == "dead").to_numpy().reshape(hidden, nets, width).all(2).any(0)
    assert abs(dead.mean() - known) < 4 * math.sqrt(known * (1 - known) / nets)


def test_g_centred_inputs_kill_no_unit_of_the_first_layer() -> None:
    torch.manual_seed(6)
    half = torch.randn(3, 20)
    model = layer(torch.randn(2000, 20))
    assert harness.scan(model, torch.cat([half, -half])).dead_fraction == 0
    both = [harness.scan(layer(torch.randn(20_000, 20)), x).dead_fraction for x in (half, -half)]
    assert both[0] == pytest.approx(both[1], abs=4 * math.sqrt(2 * both[0] / 20_000))


def test_h_the_scale_of_the_weights_does_not_matter_without_bias() -> None:
    torch.manual_seed(7)
    x = torch.randn(30, 12) + 1
    weights = [torch.randn(64, 12), torch.randn(64, 64)]
    states = []
    for gain in (1.0, 0.25, 8.0):
        model = nn.Sequential(*layer(gain * weights[0]), *layer(gain * weights[1]))
        states.append(harness.scan(model, x).units["state"].tolist())
    assert states[0] == states[1] == states[2]
    assert "dead" in states[0]


def test_i_one_step_kill_threshold() -> None:
    """Loss ½(v relu(z) - y)²: the unit dies in one SGD step iff lr > z / (v (vz - y)(‖x‖² + 1))."""
    x, weight, v, y = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, 0.25]]), 2.0, 0.5
    z = float(x @ weight.T)
    critical = z / (v * (v * z - y) * (float(x.square().sum()) + 1))
    for lr, dies in ((critical * 0.99, False), (critical * 1.01, True)):
        model = layer(weight)
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        with harness.Recorder(model, optimizer=optimizer, census_every=1, probe=[x]) as recorder:
            (0.5 * (v * model(x) - y).square().sum()).backward()
            optimizer.step()
            recorder.step()
        died = harness.lifetimes(recorder.history())["died_at"].notna().all()
        assert died == dies


def test_k_batch_norm_bounds() -> None:
    n, units = 17, 400
    torch.manual_seed(8)
    gamma = torch.randn(units)
    for shift, expected in ((1 / math.sqrt(n - 1) - 1e-3, "alive"), (math.sqrt(n - 1) + 1e-3, "dead")):
        norm = nn.BatchNorm1d(units, eps=1e-12)
        with torch.no_grad():
            norm.weight.copy_(gamma)
            norm.bias.copy_(-gamma.abs() * shift)
        model = nn.Sequential(norm, nn.ReLU())
        with harness.Recorder(model, census_every=None) as recorder:
            model(torch.randn(n, units) ** 3)
        dead = recorder.census()["state"] == "dead"
        assert dead.all() if expected == "dead" else not dead.any()


def test_l_a_unit_dead_on_the_batch_has_no_gradient_at_all() -> None:
    torch.manual_seed(9)
    head = nn.Linear(300, 3)
    model = nn.Sequential(*layer(torch.randn(300, 8), -3.0), head)
    x = torch.randn(40, 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with harness.Recorder(model, optimizer=optimizer, census_every=None) as recorder:
        nn.functional.cross_entropy(model(x), torch.randint(3, (40,))).backward()
        optimizer.step()
        recorder.step()
    units = recorder.census()
    dead = (units["state"] == "dead").to_numpy()
    assert 0 < dead.sum() < 300
    assert (units["grad_rms"][dead] == 0).all()
    assert (units["grad_norm"][dead] == 0).all()
    assert (units["grad_norm"][~dead] > 0).all()
    assert head.weight.grad is not None
    assert (head.weight.grad[:, torch.tensor(dead.tolist())] == 0).all()


def test_m_first_layer_units_dead_on_all_training_inputs_never_revive() -> None:
    torch.manual_seed(10)
    x, y = torch.randn(64, 10), torch.randint(4, (64,))
    first = layer(torch.randn(128, 10), -7.0)
    model = nn.Sequential(*first, *layer(torch.randn(64, 128) / 8, -0.2), nn.Linear(64, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    with harness.Recorder(model, optimizer=optimizer, census_every=1, probe=[x]) as recorder:
        for _ in range(60):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            recorder.step()
    lives = harness.lifetimes(recorder.history()).set_index("site")
    born = lives.loc["1"][lives.loc["1"]["born_dead"]]
    assert len(born) > 10
    assert born["revived_at"].isna().all()
    assert lives.loc["1"]["revived_at"].isna().all()
