"""Starved units: they are in the verdict, and the diagnosis says what stops their gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import harness
from harness.detector.verdict import verdict


class TopK(nn.Module):
    """A sparse autoencoder: of 24 latents, the three largest are used."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(8, 24), nn.Linear(24, 8)

    def forward(self, x: Tensor) -> Tensor:
        z = torch.relu(self.encode(x))
        best = torch.topk(z, 3, dim=-1)
        return self.decode(torch.zeros_like(z).scatter(-1, best.indices, best.values))


def close(layer: Any, units: slice = slice(None)) -> None:
    with torch.no_grad():
        layer.bias[units] = -60.0


def dead_output() -> nn.Module:
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1), nn.ReLU())
    close(model[2])
    return model


def dead_middle() -> nn.Module:
    layers = [nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 12), nn.GELU()]
    model = nn.Sequential(*layers, nn.Linear(12, 8))
    close(model[2])
    return model


def dead_convolution() -> nn.Module:
    front = [nn.Unflatten(1, (1, 8)), nn.Conv1d(1, 6, 3), nn.ReLU(), nn.Conv1d(6, 4, 3), nn.BatchNorm1d(4)]
    model = nn.Sequential(*front, nn.ReLU(), nn.Flatten(), nn.Linear(16, 8))
    close(model[4])
    return model


def never_selected() -> nn.Module:
    model = TopK()
    with torch.no_grad():
        model.encode.bias[:6] += 20.0  # these are always among the largest
        model.encode.bias[6:] += 2.0
    return model


def zero_head() -> nn.Module:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
    nn.init.zeros_(model[2].weight)  # type: ignore[arg-type]
    for p in model[2].parameters():
        p.requires_grad_(False)
    return model


def train(model: nn.Module, loss_of: Callable[[Tensor, Tensor], Tensor], **options: Any) -> harness.Recorder:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    draw = torch.Generator().manual_seed(3)
    with harness.Recorder(model, optimizer=optimizer, census_every=10, evidence=True, **options) as recorder:
        for _ in range(20):
            x = torch.randn(32, 8, generator=draw)
            loss = loss_of(model(x), x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(loss=loss)
    return recorder


def squares(out: Tensor, x: Tensor) -> Tensor:
    return (out - x[:, : out.shape[1]]).square().mean()


@pytest.mark.parametrize(
    ("make", "starved", "says"),
    [
        (dead_output, 32, "32 of them at “1”: the one unit of “3” is dead"),
        (dead_middle, 16, "16 of them at “1”: all 12 units of “3” are dead"),
        (dead_convolution, 6, "6 of them at “2”: all 4 units of “5” are dead"),
        (never_selected, 18, "18 of them at :relu: they are never selected (topk stands behind them)"),
        (zero_head, 16, "16 of them at “1”: the weights behind them are exactly 0"),
    ],
)
def test_what_stops_the_gradient_is_named(make: Callable[[], nn.Module], starved: int, says: str) -> None:
    torch.manual_seed(0)
    recorder = train(make(), squares)
    assert recorder.census()["state"].eq("starved").sum() == starved
    found = recorder.diagnose()
    assert says in found.text
    assert f"{starved} starved on the training stream" in found.text


def test_a_loss_that_gives_no_gradient_is_named() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
    recorder = train(model, lambda out, x: (out.abs() - 1e6).clamp(min=0).mean())
    assert "the loss gave no open unit a gradient" in recorder.diagnose().text


def test_what_a_dropout_cut_off_for_a_moment_is_not_the_losss_fault() -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(8, 40), nn.ReLU(), nn.Dropout(0.8), nn.Linear(40, 8)]
    model = nn.Sequential(*layers)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with harness.Recorder(model, optimizer=optimizer, census_every=1, evidence=True) as recorder:
        x = torch.randn(2, 8)
        loss = squares(model(x), x)
        loss.backward()
        optimizer.step()
        recorder.step(loss=loss)
    starved = int(recorder.census()["state"].eq("starved").sum())
    assert starved > 5
    text = recorder.diagnose().text
    assert f"{starved} of them at “1”: on other inputs a gradient comes" in text
    assert "the loss gives" not in text


@pytest.mark.parametrize("probe", [False, True])
def test_a_network_that_one_dead_unit_stops_is_not_healthy(probe: bool) -> None:
    torch.manual_seed(0)
    recorder = train(dead_output(), squares, probe=torch.randn(100, 8) if probe else None)
    found = verdict(recorder.history())
    assert found.starved == 32
    assert found.text.startswith("Most units are dead or starved: 1 of 33 units dead")
    assert "32 starved" in found.text
    diagnosis = recorder.diagnose()
    assert diagnosis.label == "bias_init"
    assert "Nothing to explain" not in diagnosis.text


def test_a_scan_with_a_loss_says_it() -> None:
    torch.manual_seed(0)
    report = harness.scan(dead_output(), torch.randn(50, 8), loss=lambda out, _: out.sum())
    assert "32 starved: their gates open, but no gradient comes back." in str(report)


class TwoBranches(nn.Module):
    """One half of the hidden units feeds a dead layer, the other half weights that are 0."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.act = nn.Linear(8, 20), nn.ReLU()
        self.dead, self.last = nn.Linear(10, 6), nn.Linear(16, 8)
        close(self.dead)
        with torch.no_grad():
            self.last.weight[:, 6:] = 0.0
        self.last.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        a = self.act(self.hidden(x))
        return self.last(torch.cat([torch.relu(self.dead(a[:, :10])), a[:, 10:]], 1))


def test_every_unit_has_its_own_reason() -> None:
    torch.manual_seed(0)
    recorder = train(TwoBranches(), squares)
    text = recorder.diagnose().text
    assert "10 of them at act: all 6 units of :relu are dead" in text
    assert "10 of them at act: the weights behind them are exactly 0" in text
    by = recorder.evidence().units.query("site == 'act'").set_index("unit")["starved_by"]
    assert by.loc[:9].eq(":relu").all()
    assert by.loc[10:].eq("zero weights").all()


@pytest.mark.parametrize("part", ["starvation", "running statistics"])
def test_what_fails_in_the_evaluation_is_said_and_the_rest_stands(part: str, monkeypatch: Any) -> None:
    from harness.attribution import collector

    def fails(*_: Any) -> None:
        raise NotImplementedError("not on this device")

    if part == "starvation":
        monkeypatch.setattr(collector, part, fails)
    monkeypatch.setitem(collector.ALTERNATIVES, "rate_eval", fails)
    torch.manual_seed(0)
    found = train(dead_convolution(), squares).diagnose()
    assert "The evidence is incomplete" in found.text
    assert "NotImplementedError: not on this device" in found.text
    assert found.units["cause"].eq("bias_init").all()


def test_a_loss_that_cannot_be_read_switches_nothing_else_off(monkeypatch: Any) -> None:
    from harness.attribution import loss_path

    def fails(*_: Any) -> None:
        raise RuntimeError("no graph here")

    monkeypatch.setattr(loss_path, "bypassed", fails)
    torch.manual_seed(0)
    found = train(dead_output(), squares).diagnose()
    assert found.label == "bias_init"
    assert "switched off" not in found.text


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
