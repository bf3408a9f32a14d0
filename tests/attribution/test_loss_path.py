"""Penalties beside the outputs, and the scale of the targets: what the loss itself tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import harness

Loss = Callable[[Any, Tensor, Tensor], Tensor]


def task() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    centres, labels = torch.randn(10, 40, generator=draw), torch.randint(0, 10, (3000,), generator=draw)
    return centres[labels] + 1.5 * torch.randn(3000, 40, generator=draw), labels


class Net(nn.Module):
    """Two hidden layers; what they give is kept, or handed out too."""

    def __init__(self, outputs: int = 10, *, hands_out: bool = False) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(40, 64), nn.Linear(64, 64)
        self.head, self.hands_out = nn.Linear(64, outputs), hands_out
        self.hidden: list[Tensor] = []

    def forward(self, x: Tensor) -> Any:
        a = torch.relu(self.one(x))
        b = torch.relu(self.two(a))
        self.hidden = [a, b]
        return (self.head(b), b) if self.hands_out else self.head(b)


def trained(
    model: nn.Module,
    loss_of: Loss,
    *,
    lr: float = 1e-3,
    steps: int = 300,
    optim: str = "adam",
    told: bool = True,
) -> harness.Recorder:
    x, y = task()
    optimizer = (torch.optim.Adam if optim == "adam" else torch.optim.SGD)(model.parameters(), lr=lr)
    order = torch.Generator().manual_seed(1)
    with harness.Recorder(
        model, optimizer=optimizer, census_every=20, probe=x[:500], evidence=True
    ) as recorder:
        for _ in range(steps):
            index = torch.randint(500, 3000, (64,), generator=order)
            loss = loss_of(model(x[index]), x[index], y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(loss=loss if told else None)
            if not torch.isfinite(loss):
                break
    return recorder


def sparse_hooked() -> tuple[nn.Module, Loss]:
    model = Net()
    return model, lambda out, x, y: F.cross_entropy(out, y) + 0.1 * sum(a.sum(1).mean() for a in model.hidden)


def sparse_handed_out() -> tuple[nn.Module, Loss]:
    return Net(
        hands_out=True
    ), lambda out, x, y: F.cross_entropy(out[0], y) + 0.3 * out[1].abs().sum(1).mean()


def sparse_convolution() -> tuple[nn.Module, Loss]:
    front = [nn.Unflatten(1, (1, 40)), nn.Conv1d(1, 24, 5, stride=5), nn.ReLU(), nn.Conv1d(24, 24, 3)]
    model = nn.Sequential(*front, nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    sizes: list[Tensor] = []
    for place in (2, 4):
        model[place].register_forward_hook(lambda module, args, out: sizes.append(out.sum((1, 2)).mean()))

    def loss(out: Tensor, x: Tensor, y: Tensor) -> Tensor:
        penalty = torch.stack(sizes[-2:]).sum()
        return F.cross_entropy(out, y) + penalty

    return model, loss


@pytest.mark.parametrize("make", [sparse_hooked, sparse_handed_out, sparse_convolution])
def test_a_penalty_that_kills_is_named(make: Callable[[], tuple[nn.Module, Loss]]) -> None:
    torch.manual_seed(0)
    recorder = trained(*make())
    loss = recorder.evidence().loss
    assert loss["penalty"] is True
    assert loss["penalty_share"] > 0.3
    assert loss["penalty_down"] > 0.9
    found = recorder.diagnose()
    assert found.label == "loss_penalty"
    assert "did not come through the final outputs" in found.text


def test_the_penaltys_share_is_that_of_the_gradient_computed_by_hand() -> None:
    torch.manual_seed(0)
    model, loss_of = sparse_hooked()
    x, y = task()
    draw = torch.Generator().manual_seed(1)
    index = torch.randint(500, 3000, (64,), generator=draw)
    parts = list(model.parameters())
    whole = torch.autograd.grad(loss_of(model(x[index]), x[index], y[index]), parts)
    own = torch.autograd.grad(F.cross_entropy(model(x[index]), y[index]), parts)
    a, b = (torch.cat([g.flatten() for g in part]) for part in (whole, own))
    expected = 1 - float(a @ b / (a.norm() * b.norm())) ** 2
    share = trained(model, loss_of, steps=20).evidence().loss["penalty_share"]
    assert share == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    "loss_of",
    [
        lambda out, x, y: F.cross_entropy(out, y),
        lambda out, x, y: F.cross_entropy(out, y) + 0.1 * out.square().mean(),  # of the outputs themselves
        lambda out, x, y: F.mse_loss(out, F.one_hot(y, 10).float()),
    ],
)
def test_without_a_penalty_there_is_none(loss_of: Loss) -> None:
    torch.manual_seed(0)
    recorder = trained(Net(), loss_of, steps=40)
    assert recorder.evidence().loss["penalty"] is False
    assert recorder.diagnose().label == "none"


def test_a_small_penalty_is_not_blamed_for_long_steps() -> None:
    torch.manual_seed(0)
    model = Net()
    found = trained(
        model, lambda out, x, y: F.cross_entropy(out, y) + 1e-6 * model.one.weight.square().sum(), lr=0.1
    ).diagnose()
    assert found.label == "step_size"
    assert "step size and a penalty in the loss" in found.text


@pytest.mark.parametrize("kind", ["weights", "rewarded activity", "squares of both signs"])
def test_a_penalty_that_closes_no_unit_is_not_blamed(kind: str) -> None:
    """The long steps kill, or it is not known; what the penalty does to the biases is not downward."""
    torch.manual_seed(0)
    model = Net()
    penalties: dict[str, Callable[[], Tensor]] = {
        "weights": lambda: 0.05 * torch.stack([p.square().sum() for p in model.parameters()]).sum(),
        "rewarded activity": lambda: -0.3 * model.hidden[0].clamp(max=3).sum(1).mean(),
        "squares of both signs": lambda: (model.two(model.hidden[0]) - 0.2).square().sum(1).mean(),
    }
    recorder = trained(model, lambda out, x, y: F.cross_entropy(out, y) + penalties[kind](), lr=0.03)
    assert recorder.evidence().loss["penalty_share"] > 0.1
    assert recorder.evidence().loss["penalty_down"] < 0.7
    assert recorder.diagnose().label in ("step_size", "unknown", "none")


# --- targets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum", "half"])
@pytest.mark.parametrize(("optim", "lr"), [("sgd", 1e-7), ("adam", 1e-2)])
def test_raw_targets_are_named(optim: str, lr: float, reduction: str) -> None:
    def loss_of(out: Tensor, x: Tensor, y: Tensor) -> Tensor:
        squares = (out.squeeze(-1) - 64_000.0 * (1 + x[:, 0].abs())).square()
        return squares.sum() if reduction == "sum" else squares.mean() * (0.5 if reduction == "half" else 1)

    torch.manual_seed(0)
    steep = 64 if reduction == "sum" and optim == "sgd" else 1
    found = trained(Net(1), loss_of, optim=optim, lr=3 * lr / steep).diagnose()
    assert found.label == "target_scale"
    assert "missed them by an rms of" in found.text


def test_scaled_targets_are_not_blamed() -> None:
    torch.manual_seed(0)
    found = trained(Net(1), lambda out, x, y: (out.squeeze(-1) - x[:, 0]).square().mean(), lr=0.1).diagnose()
    assert found.label != "target_scale"


# --- what is not known ----------------------------------------------------------------------------------


def late_penalty() -> tuple[nn.Module, Loss]:
    """None at first, so that the first gradient does not show it."""
    model, step = Net(), 0

    def loss_of(out: Tensor, x: Tensor, y: Tensor) -> Tensor:
        nonlocal step
        step += 1
        return F.cross_entropy(out, y) + min(step, 150) / 700 * sum(a.sum(1).mean() for a in model.hidden) * (
            step > 1
        )

    return model, loss_of


def test_a_penalty_that_begins_late_is_seen_in_a_late_step() -> None:
    torch.manual_seed(0)
    found = trained(*late_penalty()).diagnose()
    assert found.label == "loss_penalty"
    assert (
        "hardly any of the first gradient's power came past the final outputs; of a late step's" in found.text
    )


def test_without_a_loss_the_penalty_is_only_possible() -> None:
    torch.manual_seed(0)
    model, loss_of = sparse_hooked()
    found = trained(model, loss_of, told=False).diagnose()
    assert found.label == "unknown"
    assert "As far as the evidence goes, it is none of these: units that start closed" in found.text
    assert "its graph was not seen" in found.text.partition("Possible: ")[2]


def test_training_is_not_changed_by_a_bit() -> None:
    finals = []
    for watched in (True, False):
        torch.manual_seed(0)
        model, loss_of = sparse_hooked()
        if watched:
            trained(model, loss_of, steps=20)
        else:
            x, y = task()
            optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
            order = torch.Generator().manual_seed(1)
            for _ in range(20):
                index = torch.randint(500, 3000, (64,), generator=order)
                loss = loss_of(model(x[index]), x[index], y[index])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        finals.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*finals)


def test_of_chosen_outputs_the_errors_are_those_of_the_chosen() -> None:
    """As in Q-learning: the loss takes one output a row."""
    target = 5000.0

    def loss_of(out: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return (out.gather(1, y[:, None]) - target).square().mean()

    torch.manual_seed(0)
    loss = trained(Net(), loss_of, steps=2).evidence().loss
    assert loss["target_error"] == pytest.approx(target, rel=0.01)


@pytest.mark.parametrize("second", [False, True])
def test_raw_targets_are_named_under_two_backward_passes_a_step(second: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    x = torch.randn(512, 8)
    y = 500 + 200 * x[:, :1]
    parameters = list(model.parameters())
    with harness.Recorder(
        model, optimizer=optimizer, census_every=20, probe=x[400:], evidence=True
    ) as recorder:
        for _ in range(60):
            index = torch.randint(0, 400, (32,))
            first = (model(x[index]) - y[index]).square().mean()
            first.backward()
            with torch.no_grad():  # sharpness-aware minimisation: to the worst place near by, and back
                size = torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm()
                moves = [0.05 * p.grad / size for p in parameters if p.grad is not None]
                for parameter, move in zip(parameters, moves, strict=True):
                    parameter += move
            optimizer.zero_grad()
            other = (model(x[index]) - y[index]).square().mean()
            other.backward()
            with torch.no_grad():
                for parameter, move in zip(parameters, moves, strict=True):
                    parameter -= move
            optimizer.step()
            optimizer.zero_grad()
            recorder.step(loss=other if second else first)
    assert recorder.diagnose().label == "target_scale"


def test_raw_targets_are_told_of_accumulated_gradients() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
    optimizer = torch.optim.SGD(model.parameters(), 1e-6)
    with harness.Recorder(model, optimizer=optimizer, census_every=None, evidence=True) as recorder:
        for _ in range(2):
            losses = [(model(torch.randn(32, 8)) - 400).square().mean() / 4 for _ in range(4)]
            for loss in losses:
                loss.backward()
            optimizer.step()
            recorder.step(loss=losses[-1])
        recorder.census()
    assert recorder.evidence().loss["target_error"] == pytest.approx(400, rel=0.01)


def test_raw_targets_of_one_head_are_told_beside_a_classifier() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(8, 16), nn.ReLU())
            self.kind, self.size = nn.Linear(16, 2), nn.Linear(16, 1)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            hidden = self.body(x)
            return {"kind": self.kind(hidden), "size": self.size(hidden)}

    torch.manual_seed(0)
    model = Heads()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    with harness.Recorder(model, optimizer=optimizer, census_every=None, evidence=True) as recorder:
        x = torch.randn(64, 8)
        out = model(x)
        raw = nn.functional.mse_loss(out["size"], 3000 + 100 * x[:, :1])
        loss = nn.functional.cross_entropy(out["kind"], (x[:, 0] > 0).long()) + raw
        loss.backward()
        optimizer.step()
        recorder.step(loss=loss)
        recorder.census()
    assert recorder.evidence().loss["target_error"] == pytest.approx(3000, rel=0.01)


def test_a_penalty_that_grows_is_seen_in_a_late_step() -> None:
    torch.manual_seed(0)
    model = Net()
    step = 0

    def penalised(out: Tensor, x: Tensor, y: Tensor) -> Tensor:
        nonlocal step
        step += 1
        return F.cross_entropy(out, y) + 2e-3 * step**2 * model.hidden[0].mean()

    recorder = trained(model, penalised, lr=0.02)
    loss = recorder.evidence().loss
    assert loss["penalty_share"] < 1e-3
    assert loss["late_penalty_share"] > 0.3
