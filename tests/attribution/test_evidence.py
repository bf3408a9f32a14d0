"""What a recorder keeps for the causes, against slow and independent computations."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from small_trainings import stepped
from torch import Tensor, nn

import harness
from harness.attribution.evidence import FACTORS
from harness.attribution.shapley import shapley


def net(*, norm: bool = False, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    size = 5
    for _ in range(2):
        layers += [nn.Linear(size, 7), *([nn.BatchNorm1d(7)] if norm else []), nn.ReLU()]
        size = 7
    return nn.Sequential(*layers, nn.Linear(7, 3))


def batches(count: int = 30, size: int = 16, seed: int = 1) -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(size, 5, generator=draw) + 0.3, torch.randint(0, 3, (size,), generator=draw))
        for _ in range(count)
    ]


def train(model: nn.Module, lr: float = 0.3, **options: Any) -> harness.Recorder:
    settings = {"evidence": True, "census_every": 10} | options
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, weight_decay=options.pop("decay", 0.0))
    settings.pop("decay", None)
    with harness.Recorder(model, optimizer=optimizer, **settings) as recorder:
        for x, y in batches():
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(loss=loss)
    return recorder


# --- the game ---------------------------------------------------------------------------------------


def by_permutations(value: dict[frozenset[str], float], players: str) -> dict[str, float]:
    """Shapley's definition: the mean marginal over all orders."""
    found = dict.fromkeys(players, 0.0)
    for order in itertools.permutations(players):
        here: frozenset[str] = frozenset()
        for player in order:
            found[player] += value[here | {player}] - value[here]
            here |= {player}
    return {p: v / math.factorial(len(players)) for p, v in found.items()}


@pytest.mark.parametrize("players", ["a", "ab", "abcd", "abcdef"])
def test_shapley_values_are_the_mean_marginals_over_all_orders(players: str) -> None:
    draw = np.random.default_rng(len(players))
    coalitions = [frozenset(c) for n in range(len(players) + 1) for c in itertools.combinations(players, n)]
    value = {c: draw.normal() for c in coalitions}
    found = shapley({c: np.array(v) for c, v in value.items()}, players)
    expected = by_permutations(value, players)
    for player in players:
        assert float(found[player]) == pytest.approx(expected[player], abs=1e-12)


@pytest.mark.parametrize("norm", [False, True])
def test_the_shares_of_every_unit_sum_to_its_change(norm: bool) -> None:
    model = net(norm=norm)
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, nn.Linear) and not norm:
                layer.bias[:2] = -9  # some are dead, so that their sites are asked
            if isinstance(layer, nn.BatchNorm1d):
                layer.bias[:2] = -9
    units = train(model, decay=0.01).evidence().units
    assert len(units) == 14
    change = units["rate_now"] - units["rate_then"]
    assert np.abs(units[list(FACTORS)].sum(axis=1) - change).max() < 1e-12
    assert units["rate_then"].between(0, 1).all()


def test_shares_are_those_of_mixing_parameters_by_hand() -> None:
    """A first layer, two moments, players weights × bias × data: every coalition computed in numpy."""
    torch.manual_seed(3)
    model: Any = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
    with torch.no_grad():
        model[0].bias[0] = -50.0
    start = copy.deepcopy(model.state_dict())
    first, latest = batches(seed=4), batches(seed=5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    with harness.Recorder(model, optimizer=optimizer, census_every=None, evidence=True) as recorder:
        for k, (x, y) in enumerate([*first, *latest, *batches(60, seed=6)]):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x * (1 + k / 100)), y).backward()
            optimizer.step()
            recorder.step()
        recorder.census()
        units = recorder.evidence().units
    inputs = [x * (1 + k / 100) for k, (x, _) in enumerate([*first, *latest, *batches(60, seed=6)])]
    then, now = torch.cat(inputs[:32]), torch.cat(inputs[-32:])  # 512 inputs each
    value = {}
    for coalition in itertools.product((False, True), repeat=3):
        w, b, d = coalition
        weight = (model[0].weight if w else start["0.weight"]).detach()
        bias = (model[0].bias if b else start["0.bias"]).detach()
        z = (now if d else then) @ weight.T + bias
        chosen = frozenset(
            n for n, there in zip(("weights", "bias", "data"), coalition, strict=True) if there
        )
        value[chosen] = (z > 0).double().mean(0).numpy()
    expected = shapley(value, ("weights", "bias", "data"))
    here = units[units["site"] == "1"].sort_values("unit")
    for player, share in expected.items():
        assert np.abs(here[player].to_numpy() - share).max() < 1e-9
    assert np.abs(here["upstream"]).max() < 1e-12


def test_a_frozen_norm_is_a_player_and_a_training_one_is_not() -> None:
    model = net(norm=True)
    recorder = train(model)
    assert recorder.evidence().units["norm"].fillna(0).eq(0).all()
    model = net(norm=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with harness.Recorder(model, optimizer=optimizer, census_every=10, evidence=True) as recorder:
        for step, (x, y) in enumerate(batches()):
            if step == 15:
                for norm in (model[1], model[4]):
                    norm.running_mean += 30
                    norm.eval()
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(loss=loss)
    diagnosis = recorder.diagnose()
    assert diagnosis.label == "norm_stats"
    assert diagnosis.units["norm"].mean() > 0.5


def test_residual_sums_and_convolutions_are_asked_too() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 4, 3, padding=1)
            self.inner = nn.Conv2d(4, 4, 3, padding=1)
            self.act = nn.ReLU()
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.conv(x))
            return self.head(self.act(x + self.inner(x)).mean((2, 3)))

    torch.manual_seed(0)
    model: Any = Residual()
    with torch.no_grad():
        model.conv.bias.fill_(-30)
        model.inner.bias.fill_(-30)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with harness.Recorder(model, optimizer=optimizer, census_every=5, evidence=True) as recorder:
        for _ in range(10):
            x = torch.randn(8, 2, 6, 6)
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
            recorder.step()
    units = recorder.evidence().units
    assert set(units["site"]) == {":relu", "act"}
    assert units["rate_now"].eq(0).all()
    assert recorder.diagnose().label == "bias_init"


# --- the scalars of a step --------------------------------------------------------------------------


def test_the_scalars_of_every_step_are_those_computed_by_hand() -> None:
    model = net()
    optimizer = torch.optim.SGD(
        [
            {"params": [p for p in model.parameters() if p.ndim > 1]},
            {"params": [p for p in model.parameters() if p.ndim < 2], "lr": 0.5},
        ],
        lr=0.1,
        momentum=0.9,
        weight_decay=0.02,
    )
    expected: list[dict[str, float]] = []
    with harness.Recorder(model, optimizer=optimizer, census_every=7, evidence=True) as recorder:
        for step, (x, y) in enumerate(batches(20)):
            written = 0.0
            if step == 5:
                with torch.no_grad():
                    model[0].weight.data.add_(0.5)  # through .data, which leaves no version behind
                written = 0.5 * model[0].weight.numel() ** 0.5
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
            matrices = [p.detach().clone() for p in model.parameters() if p.ndim > 1]
            gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
            optimizer.step()
            after = torch.cat([p.detach().flatten() for p in model.parameters()])
            moved = zip((p for p in model.parameters() if p.ndim > 1), matrices, strict=True)
            recorder.step(loss=loss)
            expected.append(
                {
                    "input_mean": float(x.mean()),
                    "input_rms": float(x.square().mean().sqrt()),
                    "written_norm": written,
                    "loss": float(loss.detach()),
                    "grad_norm": float(gradient.norm()),
                    "update_norm": float((after - before).norm()),
                    "weight_norm": float(after.norm()),
                    "lr": 0.1,
                    "lr_bias": 0.5,
                    "weight_decay": 0.02,
                    "layer_move": max(
                        float((now.detach() - then).norm() / then.norm()) for now, then in moved
                    ),
                }
            )
    steps = recorder.evidence().steps
    assert steps["step"].tolist() == list(range(1, 21))
    for name in expected[0]:
        assert steps[name].to_numpy() == pytest.approx([row[name] for row in expected], rel=1e-5, abs=1e-6), (
            name
        )


def test_several_optimizers_add_up() -> None:
    model = net()
    first = torch.optim.SGD(model[0].parameters(), lr=0.1)
    rest = torch.optim.SGD([*model[2].parameters(), *model[4].parameters()], lr=0.2)
    x, y = batches(1)[0]
    with harness.Recorder(model, optimizer=[first, rest], census_every=1, evidence=True) as recorder:
        nn.functional.cross_entropy(model(x), y).backward()
        whole = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm()
        first.step()
        rest.step()
        recorder.step()
    steps = recorder.evidence().steps
    assert steps["grad_norm"].iloc[0] == pytest.approx(float(whole), rel=1e-5)
    assert steps["lr"].iloc[0] == pytest.approx(0.2)


# --- manners ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", [False, True])
def test_training_is_not_changed_by_a_bit(norm: bool) -> None:
    watched, plain = net(norm=norm), net(norm=norm)
    train(watched)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.3)
    for x, y in batches():
        optimizer.zero_grad()
        nn.functional.cross_entropy(plain(x), y).backward()
        optimizer.step()
    for a, b in zip(watched.state_dict().values(), plain.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_asking_inside_the_block_changes_nothing_and_is_not_counted() -> None:
    model, other = net(norm=True), net(norm=True)
    for net_, ask in ((model, True), (other, False)):
        torch.manual_seed(5)
        optimizer = torch.optim.SGD(net_.parameters(), lr=0.3)
        with harness.Recorder(net_, optimizer=optimizer, census_every=10, evidence=True) as recorder:
            for x, y in batches():
                optimizer.zero_grad()
                nn.functional.cross_entropy(net_(x), y).backward()
                optimizer.step()
                recorder.step()
                if ask and recorder.steps in (10, 15):
                    recorder.diagnose()
        histories = recorder.history()
        n = histories.loc[histories["step"] == 20, "n"]
        assert set(n) == {160}
    for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_hooks_are_gone_afterwards() -> None:
    model = net()
    train(model)
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_evidence_needs_an_optimizer_and_has_to_be_asked_for() -> None:
    with pytest.raises(ValueError, match="give optimizer="):
        harness.Recorder(net(), evidence=True)
    model = net()
    recorder = train(model, evidence=False)
    with pytest.raises(RuntimeError, match="evidence=True"):
        recorder.diagnose()


def test_the_state_continues_elsewhere() -> None:
    """Ten steps, state_dict, twenty more in another recorder: as thirty in one."""
    whole = train(net(), census_every=10).evidence()
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    states: Any = None
    for part in (batches()[:10], batches()[10:]):
        recorder = harness.Recorder(model, optimizer=optimizer, census_every=10, evidence=True)
        if states is not None:
            recorder.load_state_dict(states)
        with recorder:
            for x, y in part:
                stepped(recorder, optimizer, nn.functional.cross_entropy(model(x), y))
            states = recorder.state_dict()
    parts = recorder.evidence()
    assert parts.steps.equals(whole.steps)
    assert np.allclose(
        parts.units.select_dtypes("number"), whole.units.select_dtypes("number"), equal_nan=True, atol=0
    )


def test_the_outputs_of_a_step_are_those_before_its_first_update() -> None:
    """A discriminator is run again for the generator, after an update that may have thrown it off."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=100.0)
    (x, _), (again, _) = batches(2)
    with harness.Recorder(model, optimizer=optimizer, census_every=1, evidence=True) as recorder:
        out = model(x)
        out.square().mean().backward()
        optimizer.step()
        model(again).mean().backward()
        recorder.step()
    assert recorder.evidence().steps["output_rms"].iloc[0] == pytest.approx(
        float(out.detach().square().mean().sqrt()), rel=1e-5
    )
