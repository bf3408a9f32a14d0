"""`harness.prescribe` on one's own training code, cures applied from outside."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import harness
from harness import progress
from harness.trials.code_cures import BY_HAND, CODE_CURES
from harness.trials.fresh_training import FreshTraining
from harness.trials.own_training import _pool, _run, _trial

DRAW = torch.Generator().manual_seed(0)
X = torch.randn(256, 8, generator=DRAW)
Y = (X[:, :4].sum(1) > 0).long() + 2 * (X[:, 4:].abs().sum(1) > 3).long()


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def accuracy(model: nn.Module) -> float:
    return float((model(X).argmax(1) == Y).float().mean())


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))


def batches(step: int) -> tuple[Tensor, Tensor]:
    rows = torch.arange(32) + 32 * (step % 8)
    return X[rows], Y[rows]


def low_biases(seed: int) -> tuple[Any, ...]:
    model = network()
    nn.init.constant_(model[0].bias, -9.0)  # type: ignore[arg-type]
    return model, torch.optim.Adam(model.parameters(), 0.01), batches, loss, accuracy


def healthy(seed: int) -> tuple[Any, ...]:
    model = network()
    return model, torch.optim.Adam(model.parameters(), 0.005), batches, loss, accuracy


def test_the_cure_is_found_and_its_code_told() -> None:
    before = torch.random.get_rng_state()
    found = harness.prescribe(low_biases, steps=40, seeds=3, budget=20, workers=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert found.label == "bias_init"
    rows = {row["cure"]: row for row in found.table.to_dict("records")}
    assert rows[found.cure]["verdict"] == "helps"
    assert rows[found.cure]["metric"] > rows["as it was"]["metric"] + 0.2
    assert "bias" in found.cure
    assert "nn.init.zeros_(model.get_submodule(name).bias)" in found.command
    assert "['0', '2']" in found.command
    assert BY_HAND.items() <= dict(found.left_out).items()
    assert found.left_out["no decay"] == "the optimizer decays nothing"


def test_a_healthy_training_has_nothing_to_cure() -> None:
    found = harness.prescribe(healthy, steps=60, workers=1)
    assert (found.label, found.cure) == ("none", "")
    assert found.table.empty


def idle(seed: int) -> tuple[Any, ...]:
    model = network()
    return model, torch.optim.SGD(model.parameters(), 1e-9), batches, loss, accuracy


def test_a_training_that_learns_nothing_is_not_called_healthy() -> None:
    found = harness.prescribe(idle, steps=20, seeds=3, budget=20, workers=1)
    assert found.label == "unknown"
    assert found.text.startswith("Few units are dead, but the training gains nothing on the held-out data.")
    assert not found.table.empty


def test_the_same_call_finds_the_same() -> None:
    options: dict[str, Any] = {"steps": 20, "seeds": 2, "budget": 4, "workers": 1}
    assert harness.prescribe(low_biases, **options).text == harness.prescribe(low_biases, **options).text


def test_how_far_it_is_is_said_where_it_takes_long(monkeypatch: Any, capsys: Any) -> None:
    _run(low_biases, 2, [("", 0), ("", 1)], None)
    assert not capsys.readouterr().err
    monkeypatch.setattr(progress, "QUIET", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    _run(low_biases, 2, [("", 0), ("", 1)], None)
    assert "prescribe, 2 steps each: 2 of 2 trainings" in capsys.readouterr().err


def test_workers_find_what_this_process_finds() -> None:
    jobs = [("", 0), ("zero bias", 1)]
    one = _run(low_biases, 5, jobs, None)
    with _pool(2) as pool:
        two = _run(low_biases, 5, jobs, pool)
    assert [trial.metric for trial in one] == [trial.metric for trial in two]


def _fresh() -> FreshTraining:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), *network()[1:])
    nn.init.constant_(model[0].bias, -1.0)  # type: ignore[arg-type]
    weights, biases = ([p for p in model.parameters() if p.ndim == k] for k in (2, 1))
    groups = [{"params": weights}, {"params": biases, "lr": 3.0}]
    optimizer = torch.optim.SGD(groups, 0.3, weight_decay=0.1)
    falling = itertools.count(0, -1)
    return FreshTraining(model, optimizer, (100 * X + 50,), 20, metric=lambda: next(falling))


@pytest.mark.parametrize("name", sorted(CODE_CURES))
def test_every_cure_changes_the_training_and_lets_it_run(name: str) -> None:
    weights = {}
    for cured in (False, True):
        training = _fresh()
        if cured:
            CODE_CURES[name].apply(training)
        for step in range(20):
            training.optimizer.zero_grad()
            inputs, labels = batches(step)
            nn.functional.cross_entropy(training.model(100 * inputs + 50), labels).backward()
            for group, lr in zip(training.optimizer.param_groups, (0.3, 3.0), strict=True):
                group["lr"] = lr * (100 if step == 15 else 1)  # a schedule, with a spike
            training.optimizer.step()
        weights[cured] = torch.cat([p.detach().flatten() for p in training.model.parameters()])
    assert not torch.equal(weights[False].nan_to_num(), weights[True][: len(weights[False])].nan_to_num())


@pytest.mark.parametrize("tensor", [False, True])
def test_learning_rates_come_back_after_each_step_under_several_cures(tensor: bool) -> None:
    training = _fresh()
    for group in training.optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"]) if tensor else group["lr"]
    used: list[list[float]] = []
    for name in ("learning rate / 10", "one learning rate", "early stopping"):
        CODE_CURES[name].apply(training)
    training.optimizer.register_step_pre_hook(
        lambda optimizer, *_: used.append([float(group["lr"]) for group in optimizer.param_groups])
    )
    for step in range(4):
        nn.functional.cross_entropy(training.model(batches(step)[0]), batches(step)[1]).backward()
        training.optimizer.step()
        rates = [float(group["lr"]) for group in training.optimizer.param_groups]
        assert rates == pytest.approx([0.3, 3.0])
    assert used == [pytest.approx([0.03, 0.03])] * 4


def test_what_is_no_training_is_refused() -> None:
    with pytest.raises(TypeError, match=r"expected \(model, optimizer, batches, loss\).*but got Sequential"):
        harness.prescribe(lambda seed: network(), steps=5)
    with pytest.raises(
        TypeError, match="expected a module and an optimizer first, but got Sequential and int"
    ):
        harness.prescribe(lambda seed: (network(), 3, batches, loss), steps=5)
    with pytest.raises(ValueError, match="steps: expected at least 1"):
        harness.prescribe(healthy, steps=0)
    with pytest.raises(ValueError, match="the metric: expected a finite number"):
        harness.prescribe(lambda seed: (*healthy(seed)[:4], lambda model: float("nan")), steps=5, workers=1)


@pytest.mark.parametrize("name", ["gelu", "leaky_relu", "sugar"])
def test_a_relu_at_several_places_is_swapped_at_all_of_them(name: str) -> None:
    training = _fresh()
    act = nn.ReLU()
    training.model[2] = training.model[4] = act  # type: ignore[index]
    CODE_CURES[name].apply(training)
    assert not any(type(module) is nn.ReLU for module in training.model.modules())


def gan(seed: int) -> tuple[Any, ...]:
    """A discriminator whose learning rate is too high; its step trains the generator too."""
    model, generator = network(), nn.Linear(4, 8)
    optimizer = torch.optim.SGD(model.parameters(), 20.0)
    other = torch.optim.Adam(generator.parameters(), 0.001)

    def step(model: nn.Module, real: Tensor) -> None:
        fake = generator(torch.randn(32, 4))
        optimizer.zero_grad()
        scores = model(torch.cat([real, fake.detach()])).mean(1)
        labels = torch.cat([torch.ones(32), torch.zeros(32)])
        nn.functional.binary_cross_entropy_with_logits(scores, labels).backward()
        optimizer.step()
        other.zero_grad()
        nn.functional.softplus(-model(fake).mean(1)).mean().backward()
        other.step()

    def metric(model: nn.Module) -> float:
        draw = torch.Generator().manual_seed(1)
        real, fake = 2 + torch.randn(128, 8, generator=draw), torch.randn(128, 8, generator=draw)
        return float(
            ((model(real).mean(1) > 0).float().mean() + (model(fake).mean(1) < 0).float().mean()) / 2
        )

    return model, optimizer, lambda step: 2 + torch.randn(32, 8), step, metric


def test_a_step_of_ones_own_is_tried_as_well() -> None:
    found = harness.prescribe(gan, steps=40, seeds=2, budget=6, workers=1)
    assert found.label == "step_size"
    assert (
        "learning rate" in found.table.loc[~found.table["cure"].str.startswith("as it was"), "cure"].iloc[0]
    )
    assert set(found.table["steps"]) <= set(range(1, 41))


def residual(seed: int) -> tuple[Any, ...]:
    """A model on which ReDo cannot act, with low biases and random batches."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.last = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)
            nn.init.constant_(self.first.bias, -9.0)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(x + self.first(x))
            return self.last(torch.relu(x + self.second(x)))

    model = Residual()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, weight_decay=1e-30)
    return model, optimizer, lambda step: (torch.randn(16, 8), torch.randint(4, (16,))), loss


def test_a_remedy_that_can_act_nowhere_is_left_out() -> None:
    assert "no site" in _trial(residual, 0, 5, "redo").refused
    assert _trial(residual, 0, 5, "").refused == ""


def test_all_arms_of_a_seed_see_the_same_batches() -> None:
    before, same = _trial(residual, 3, 10, ""), _trial(residual, 3, 10, "no decay")
    assert before.metric == same.metric
    assert _trial(residual, 4, 10, "").metric != before.metric


def test_a_cure_that_fails_in_training_is_left_out_and_the_others_go_on() -> None:
    def fragile(seed: int) -> tuple[Any, ...]:
        model, optimizer, data, loss_of, metric = low_biases(seed)

        def strict(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
            if any(isinstance(part, nn.GELU) for part in model.modules()):
                raise RuntimeError("only ReLU here")
            return loss_of(model, batch)

        return model, optimizer, data, strict, metric

    found = harness.prescribe(fragile, steps=12, seeds=2, budget=60, workers=1)
    assert "only ReLU here" in found.left_out["gelu"]
    assert "gelu" not in set(found.table["cure"])
