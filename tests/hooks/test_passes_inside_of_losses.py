"""grad_rms is of the loss that is passed to `backward()`, whatever gradients the loss itself takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_nets import hooks_of
from torch import Tensor, nn
from torch.func import functional_call

import harness
from harness.hooks import _torch

Loss = Callable[[Any, Tensor], Tensor]


class Net(nn.Module):
    """Hands its pre-activations out to whoever asks, for the truth."""

    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(2, 8), nn.Linear(8, 8), nn.Linear(8, outputs)
        self.kept: list[list[Tensor]] | None = None

    def forward(self, x: Tensor) -> Tensor:
        first = self.a(x)
        second = self.b(F.relu(first))
        if self.kept is not None:
            self.kept.append([first, second])
        return self.c(F.relu(second))


class Energy(nn.Module):
    """Takes a gradient in its forward: forces are those of an energy."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(self.net(x).square().sum(), x, create_graph=True)[0]


def slope(u: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(u, x, torch.ones_like(u), create_graph=True)[0]


def physics(net: Any, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    u = net(x)
    return (slope(u, x).sum(1) - 1).square().mean() + 1e-3 * u.square().mean()


def unused_slope(net: Any, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    u = net(x)
    slope(u, x)
    return 1e-3 * (u - 1).square().mean()


def penalty(net: Any, x: Tensor) -> Tensor:
    """Of a critic (Gulrajani et al. 2017)."""
    x = x.clone().requires_grad_()
    return (slope(net(x), x).norm(dim=1) - 1).square().mean() + net(x.detach() + 1).mean()


def inner_steps(net: Any, x: Tensor) -> Tensor:
    """As of MAML."""
    values: dict[str, Any] = dict(net.named_parameters())
    for _ in range(2):
        loss = (functional_call(net, values, (x,)) - 1).square().mean()
        gradients = torch.autograd.grad(loss, list(values.values()), create_graph=True)
        values = {name: v - 0.1 * g for (name, v), g in zip(values.items(), gradients, strict=True)}
    return functional_call(net, values, (x + 1,)).square().mean()


def first_order(net: Any, x: Tensor) -> Tensor:
    loss = net(x).square().mean()
    found = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True)
    return loss * (1 + sum(float(g.norm()) for g in found))


def forces(net: Any, x: Tensor) -> Tensor:
    return (net(x) - 1).square().mean()


def truth(model: nn.Module, net: Net, loss: Loss, batches: list[Tensor]) -> list[Tensor]:
    """Root mean squares of ∂L/∂z of the two sites."""
    squares, n = [torch.zeros(8).double(), torch.zeros(8).double()], 0
    for x in batches:
        net.kept = []
        value = loss(model, x)
        for zs in net.kept:
            found = torch.autograd.grad(value, zs, retain_graph=True, allow_unused=True)
            for place, gradient in enumerate(found):
                if gradient is not None:
                    squares[place] += gradient.double().square().sum(0)
            n += len(x) if any(g is not None for g in found) else 0
    net.kept = None
    return [(s / n).sqrt() for s in squares]


@pytest.mark.parametrize("loss", [physics, unused_slope, penalty, inner_steps, first_order, forces])
@pytest.mark.parametrize("known", [True, False], ids=["", "public torch"])
def test_gradients_inside_of_a_loss_are_none_of_it(
    loss: Loss, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not known:
        monkeypatch.setattr(_torch, "_reaches", None)
    torch.manual_seed(0)
    model = Energy() if loss is forces else Net()
    net: Any = model.net if isinstance(model, Energy) else model
    batches = [torch.randn(16, 2) for _ in range(12)]
    expected = truth(model, net, loss, batches)
    before = hooks_of(model)
    with harness.Recorder(model, census_every=None) as recorder:
        for x in batches:
            loss(model, x).backward()
        units = recorder.census()
    found = [part["grad_rms"].tolist() for _, part in units.groupby("site", sort=False)]
    close = [
        f == pytest.approx(e.tolist(), rel=1e-4, abs=1e-12) for f, e in zip(found, expected, strict=True)
    ]
    assert all(close) is known  # without it, every pass counts
    assert hooks_of(model) == before


def test_a_loss_without_a_gradient_starves_every_unit_that_opens() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 16), nn.ReLU(), nn.Linear(16, 1))
    with harness.Recorder(model, census_every=None) as recorder:
        for _ in range(3):
            x = torch.rand(64, 1, requires_grad=True)
            first = slope(model(x), x)
            second = torch.autograd.grad(first.sum() + 0 * x.sum(), x, create_graph=True)[0]
            ((second + 1).square().mean() + 0 * model(x).sum()).backward()
        units = recorder.census()
    assert set(units["state"]) == {"starved", "dead"}
    assert (units["grad_rms"] == 0).all()


@pytest.mark.parametrize("way", ["a prompt", "the input", "some parameters", "a copy's parameters"])
def test_a_backward_counts_wherever_it_accumulates(way: str) -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(3, 9), nn.ReLU(), nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 1))
    x, inputs, values = torch.randn(10, 3), None, None
    if way in ("a prompt", "the input"):
        model.requires_grad_(False)
        x.requires_grad_()
    elif way == "some parameters":
        inputs = [model[0].bias]
    else:
        values = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
        model.requires_grad_(False)
    with harness.Recorder(model, census_every=None) as recorder:
        for _ in range(12):
            given = x.tanh() + 0 if way == "a prompt" else x
            out = model(given) if values is None else functional_call(model, values, (given,))
            out.square().sum().backward(inputs=inputs)
        units = recorder.census()
    assert (units["grad_rms"] > 0).any()
    assert units["grad_rms"].notna().all()


@pytest.mark.filterwarnings("ignore:.*is a guess")
def test_an_activation_of_the_input_itself() -> None:
    model = nn.Sequential(nn.ReLU())
    with harness.Recorder(model, census_every=None) as recorder:
        x = torch.randn(10, 3, requires_grad=True)
        slope(model(x), x)
        (model(x) * 2).sum().backward()
        units = recorder.census()
    expected = 2 * (x > 0).double().mean(0).sqrt()
    assert units["grad_rms"].tolist() == pytest.approx(expected.tolist(), rel=1e-6)


class Recomputed(torch.autograd.Function):
    """A checkpoint of one's own, whose backward calls `torch.autograd.grad`."""

    @staticmethod
    def forward(ctx: Any, run: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.run, ctx.parameters = run, parameters
        ctx.save_for_backward(x)
        with torch.no_grad():
            return run(x)

    @staticmethod
    def backward(ctx: Any, *gradient: Any) -> Any:
        (x,) = (t.detach().requires_grad_() for t in ctx.saved_tensors)
        with torch.enable_grad():
            out = ctx.run(x)
        return None, *torch.autograd.grad(out, (x, *ctx.parameters), *gradient)


def test_a_recomputation_is_part_of_the_pass_that_it_runs_in() -> None:
    torch.manual_seed(0)
    part = nn.Sequential(nn.Linear(3, 4), nn.ReLU())

    class Model(nn.Module):
        def __init__(self, own: bool) -> None:
            super().__init__()
            self.part, self.last, self.own = part, nn.Linear(4, 1), own

        def forward(self, x: Tensor) -> Tensor:
            h = Recomputed.apply(self.part, x, *self.part.parameters()) if self.own else self.part(x)
            return self.last(h)

    plain, recomputed = Model(False), Model(True)
    recomputed.load_state_dict(plain.state_dict())
    found = []
    for model in (plain, recomputed):
        x = torch.randn(10, 3, generator=torch.Generator().manual_seed(1))
        with harness.Recorder(model, census_every=None) as recorder:
            for _ in range(12):
                model(x).square().sum().backward()
            found.append(recorder.census()["grad_rms"].tolist())
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_gradients_that_are_only_returned_are_not_known() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    said = pytest.warns(UserWarning, match="gradients were taken by torch.autograd.grad or torch.func alone")
    with said, harness.Recorder(model, census_every=None) as recorder:
        torch.autograd.grad(model(torch.randn(10, 3)).sum(), list(model.parameters()))
        units = recorder.census()
    assert units["grad_rms"].isna().all()
    assert "starved" not in set(units["state"])
