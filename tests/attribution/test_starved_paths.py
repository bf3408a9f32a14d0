"""Starved units behind heads, gaps, experts and slices: every one has its own reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from starving import close, dead_middle, squares, train
from torch import Tensor, nn

import harness


class Heads(nn.Module):
    """A trunk and two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(8, 24), nn.ReLU())
        self.a, self.b = (nn.Sequential(nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 1)) for _ in "ab")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.trunk(x)
        return self.a(h), self.b(h)


def first_and(weight: float | Tensor) -> Callable[[Any, Tensor], Tensor]:
    def loss(out: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
        return squares(out[0], x) + weight * squares(out[1], x[:, 1:])

    return loss


@pytest.mark.parametrize("weight", [0.0, torch.exp(torch.tensor(-200.0))])
def test_a_head_without_weight_in_the_loss_is_said_to_be_left_out(weight: float | Tensor) -> None:
    torch.manual_seed(0)
    text = train(Heads(), first_and(weight)).diagnose().text
    assert "16 of them at b.1: the way to the outputs is open, but no census saw a gradient" in text
    assert "on other inputs a gradient comes" not in text


def test_a_head_in_no_loss_is_named_and_a_frozen_one_is_not() -> None:
    def only_first(out: Any, x: Tensor) -> Tensor:
        return squares(out[0], x)

    torch.manual_seed(0)
    said = "No backward pass reached 16 units at any step: b.1 (16); what they lead to is in no loss."
    assert said in train(Heads(), only_first).diagnose().text
    frozen = Heads()
    frozen.trunk.requires_grad_(False)
    frozen.b.requires_grad_(False)
    assert "No backward pass" not in train(frozen, only_first).diagnose().text
    assert "No backward pass" not in train(Heads(), only_first, gradients=False).diagnose().text
    assert "No backward pass" not in train(Heads(), first_and(1.0)).diagnose().text


class Gap(nn.Module):
    """A unit of the first layer opens on few inputs, and what follows is closed on just those."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.last = nn.Linear(8, 12), nn.Linear(12, 6), nn.Linear(18, 8)
        with torch.no_grad():
            self.one.bias[:5] = -60.0  # these are dead
            self.one.weight[11] = 0.0
            self.one.weight[11, 0], self.one.bias[11] = 1.0, -1.5
            self.two.weight[:, 11], self.two.bias[:] = -100.0, 1.0  # whatever opens it closes the next layer
            self.two.weight[:, :11] = 0.0
            self.last.weight[:, 11] = 0.0  # of the first layer, this one is not handed on
            self.last.weight[:, 12:].abs_()

    def forward(self, x: Tensor) -> Tensor:
        a = torch.relu(self.one(x))
        return self.last(torch.cat([a, torch.relu(self.two(a))], 1))


def test_a_unit_is_not_stopped_by_its_own_layer() -> None:
    torch.manual_seed(0)
    model = Gap()
    model.requires_grad_(False)
    model.one.weight.requires_grad_()
    text = train(model, squares).diagnose().text
    assert "1 of them at :relu: " in text
    assert "units of :relu are dead" not in text


class Shared(nn.Module):
    """One dead tower over two scales."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.tower, self.box = nn.Linear(8, 8), nn.Linear(8, 16), nn.Linear(16, 4)
        close(self.box)

    def forward(self, x: Tensor) -> Tensor:
        a = self.stem(x)
        outs = [torch.relu(self.box(torch.relu(self.tower(f)))) for f in (a, 2 * a)]
        return sum(outs) + a[:, :4]  # type: ignore[return-value]


def test_calls_that_are_kept_apart_have_each_their_own_reason() -> None:
    torch.manual_seed(0)
    recorder = train(Shared(), squares, per_call=True)
    assert [site.name for site in recorder.sites] == [":relu", ":relu#1", ":relu#2", ":relu#3"]
    text = recorder.diagnose().text
    assert "16 of them at :relu: all 4 units of :relu#1 are dead" in text
    assert "16 of them at :relu#2: all 4 units of :relu#3 are dead" in text
    assert "it is not known" not in text


def test_a_unit_that_the_last_inputs_left_closed_has_its_reason_too() -> None:
    """It opened on some of the window's inputs, and on none of those that were copied."""
    torch.manual_seed(0)
    model = dead_middle()
    with torch.no_grad():
        model[0].weight[0] = 0.0  # type: ignore[index,union-attr,operator]
        model[0].weight[0, 0], model[0].bias[0] = 1.0, -50.0  # type: ignore[index,union-attr,operator]
    optimizer, draw = torch.optim.SGD(model.parameters(), lr=1e-3), torch.Generator().manual_seed(3)
    with harness.Recorder(model, optimizer=optimizer, census_every=40, evidence=True) as recorder:
        for step in range(40):
            x = torch.randn(32, 8, generator=draw)
            x[0, 0] = 60.0 if step == 0 else x[0, 0]
            loss = squares(model(x), x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(loss=loss)
    text = recorder.diagnose().text
    assert "16 of them at “1”: all 12 units of “3” are dead" in text


class Experts(nn.Module):
    """A mixture whose router never chooses the experts after the first."""

    def __init__(self, combine: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.router, self.combine = nn.Linear(8, 3), combine
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 8)) for _ in range(3)
        )
        with torch.no_grad():
            self.router.bias[0] = 200.0

    def forward(self, x: Tensor) -> Tensor:
        weight, best = self.router(x).softmax(-1).max(-1)
        chosen = [weight * (best == number) for number in range(3)]
        made = [self.combine(e(x), w[:, None]) for e, w in zip(self.experts, chosen, strict=True)]
        return torch.stack(made).sum(0)


@pytest.mark.parametrize(
    "combine",
    [
        lambda value, weight: value * weight,
        lambda value, weight: torch.where(weight > 0, value, 0.0 * weight),
        lambda value, weight: value.masked_fill(weight == 0, 0.0),
        lambda value, weight: (weight[..., None] @ value[:, None])[:, 0],
    ],
    ids=["product", "where", "masked_fill", "matmul"],
)
def test_experts_that_a_router_never_chooses_are_masked(combine: Any) -> None:
    recorder = train(Experts(combine), lambda out, x: (out - x).square().mean())
    said = str(recorder.diagnose())
    assert "12 starved" in said, said
    assert (
        "12 of them at experts.1.1 (6), experts.2.1 (6): what they lead to is masked, or multiplied" in said
    )


class CutOff(nn.Module):
    """Half of the hidden units is cut off behind a sort, which selects all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 8), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.one(x))
        ordered = hidden.sort(0).values
        return self.two(ordered[:, :4])


def test_what_is_cut_off_is_not_called_unselected() -> None:
    torch.manual_seed(0)
    found = str(train(CutOff(), squares).diagnose())
    assert "4 of them at :relu: no output changes with them" in found
    assert "selected" not in found
