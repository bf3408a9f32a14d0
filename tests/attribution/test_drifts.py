"""What sets in slowly, or changes what no optimizer trains, is found as an event, and named as the cause."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from small_trainings import diagnosed_by, inputs, plain, stepped
from torch import Tensor, nn

import harness
from harness.attribution.events import events

X, Y = inputs()
CE = nn.functional.cross_entropy


def calm(steps: int = 200) -> pd.DataFrame:
    """A calm training: noise of a few per cent on everything."""
    draw = np.random.default_rng(0)

    def noisy(level: float) -> np.ndarray:
        return level * np.exp(0.05 * draw.normal(size=steps))

    columns = {"loss": 1.0, "grad_norm": 2.0, "update_norm": 0.02, "output_rms": 3.0, "output_grad_norm": 0.1}
    fixed = {"step": np.arange(1, steps + 1), "input_mean": 0.1, "input_rms": 1.0, "written_norm": 0.0}
    fixed |= {"weight_norm": 20.0, "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}
    return pd.DataFrame(fixed | {name: noisy(level) for name, level in columns.items()})


def rising(frame: pd.DataFrame, times: float, *names: str, start: int = 60) -> pd.DataFrame:
    """Columns that rise slowly from a step on, in the end by a factor."""
    part = ((frame["step"] - start) / (len(frame) - start)).clip(lower=0)
    for name in names:
        frame[name] = frame[name] * times**part
    return frame


def test_a_loss_that_rises_slowly_under_steps_as_before_is_its_own() -> None:
    (event,) = events(rising(calm(), 5.0, "loss"))
    assert event.label == "labels"
    assert 80 < event.step < 120
    assert "the loss has risen slowly" in event.text


def test_it_is_a_penalty_if_the_outputs_do_not_feel_it() -> None:
    frame = rising(calm(), 5.0, "loss")
    frame.attrs["loss"] = {"penalty": True}
    assert [event.label for event in events(frame)] == ["loss_penalty"]


class Kept(nn.Module):
    """Keeps its hidden layer, which a penalty reads."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.hidden = nn.Linear(20, 32), nn.Linear(32, 5), torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        self.hidden = torch.relu(self.one(x))
        return self.two(self.hidden)


def test_a_penalty_that_grows_until_it_is_nearly_all_of_the_gradient() -> None:
    torch.manual_seed(0)
    model = Kept()

    def loss_of(step: int, rows: Tensor) -> Tensor:
        weight = 1e-4 * 1.08 ** min(step, 140)
        return CE(model(X[rows]), Y[rows]) + weight * model.hidden.sum(1).mean()

    found = diagnosed_by(model, loss_of, steps=200, probe=X[:500])
    assert found.label == "loss_penalty"
    assert "of a late step's, " in str(found)


def test_it_is_the_scale_of_the_loss_if_the_gradient_at_the_outputs_rises_alike() -> None:
    frame = rising(calm(), 5.0, "loss", "output_grad_norm", "grad_norm", "update_norm")
    assert [event.label for event in events(frame) if not event.inner] == ["step_size"]


def test_it_is_the_targets_if_the_outputs_miss_them_by_ever_more() -> None:
    frame = rising(calm(), 400.0, "loss", "update_norm")
    frame.attrs["loss"] = {"target_error": 3.0}
    assert [event.label for event in events(frame) if not event.inner] == ["labels"]


def test_longer_steps_that_raise_the_loss_are_no_change_of_the_loss() -> None:
    frame = rising(calm(), 5.0, "loss", "update_norm", "output_rms")
    assert not [event for event in events(frame) if event.label == "labels"]


@pytest.mark.parametrize("name", ["lr", "momentum"])
def test_a_rate_that_rises_slowly_until_the_end_is_an_event(name: str) -> None:
    frame = calm()
    if name == "lr":
        rising(frame, 30.0, "lr")
    else:
        frame["momentum"] = 1 - 0.1 * 30.0 ** -((frame["step"] - 60) / 140).clip(lower=0)
    (event,) = events(frame)
    assert (event.label, event.column) == ("step_size", "lr")
    assert ("the learning rate" in event.text) == (name == "lr")
    assert "30×" in event.text or "29." in event.text, event.text


def test_a_warm_up_is_none() -> None:
    frame = calm()
    frame["lr"] = 0.1 * (frame["step"] / 20).clip(upper=1)
    assert not events(frame)


def test_a_negative_rate_is_said_to_be_one() -> None:
    frame = calm()
    frame.loc[frame["step"] > 150, "lr"] = -0.01
    assert "the learning rate is negative" in events(frame)[0].text


class Scaled(nn.Module):
    """Its forward uses a number, a buffer and a frozen layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.shift = plain(), 0.0
        self.register_buffer("away", torch.zeros(32))
        self.frozen = nn.Linear(20, 20).requires_grad_(False)
        with torch.no_grad():
            self.frozen.weight.copy_(torch.eye(20))
            assert self.frozen.bias is not None
            self.frozen.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        first, *rest = self.body
        z = first(self.frozen(x)) - self.shift - self.away
        for layer in rest:
            z = layer(z)
        return z


def number(model: Any, step: int) -> None:
    if step == 35:
        model.shift = 6.0


def buffer(model: Any, step: int) -> None:
    if step == 35:
        model.away.fill_(6.0)


def frozen(model: Any, step: int) -> None:
    if step == 35:
        with torch.no_grad():
            model.frozen.bias.fill_(40.0)


def moved_from(change: Callable[[Any, int], None], **options: Any) -> harness.Diagnosis:
    torch.manual_seed(0)
    model = Scaled()

    def loss_of(step: int, index: Tensor) -> Tensor:
        change(model, step)
        return CE(model(X[index]), Y[index])

    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.02)
    return diagnosed_by(model, loss_of, steps=80, optimizer=optimizer, probe=X[:200], **options)


def test_a_number_of_a_module_that_changes_is_the_cause() -> None:
    found = moved_from(number)
    assert found.label == "forward", found.text
    assert "between step 32 and step 40: shift went from 0 to 6" in found.text


def test_a_buffer_that_changes_is_the_cause() -> None:
    found = moved_from(buffer)
    assert found.label == "forward", found.text
    assert "the buffer away changed" in found.text


def test_a_frozen_layer_that_is_overwritten_is_the_cause() -> None:
    found = moved_from(frozen)
    assert found.label == "surgery", found.text
    assert "frozen.bias changed" in found.text or "frozen.weight changed" in found.text


def test_nothing_that_stays_is_an_event() -> None:
    found = moved_from(lambda model, step: None)
    assert found.label == "none", found.text
    assert not found.events["text"].str.contains("between step").any()


def test_labels_that_become_wrong_slowly_are_the_cause() -> None:
    torch.manual_seed(0)
    model, draw = plain(), torch.Generator().manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def loss_of(step: int, index: Tensor) -> Tensor:
        wrong = torch.rand(64, generator=draw) < (step - 60) / 150
        labels = torch.where(wrong, torch.randint(0, 5, (64,), generator=draw), Y[index])
        return CE(model(X[index]), labels)

    found = diagnosed_by(model, loss_of, steps=300, optimizer=optimizer, probe=X[:500])
    slow = found.events[found.events["text"].str.contains("risen slowly")]
    assert slow["label"].tolist() == ["labels"], found.events.to_string()


def test_classes_that_come_one_after_another_are_inputs_in_an_order() -> None:
    torch.manual_seed(0)
    model, order = plain(), torch.argsort(Y, stable=True)
    centred = X + 3.0 * torch.randn(5, 20)[Y]
    centred = (centred - centred.mean(0)) / centred.std(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)

    def loss_of(step: int, index: Tensor) -> Tensor:
        at = order[(step - 1) * 40 % 4000 :][:40]
        return CE(model(centred[at]), Y[at])

    found = diagnosed_by(model, loss_of, steps=100, optimizer=optimizer, probe=centred[:500])
    assert found.label in ("input_shift", "none"), found.text
    if found.label == "input_shift":
        assert "an order, by class" in found.text


def test_one_column_that_is_far_larger_is_the_cause_of_births_behind_it() -> None:
    torch.manual_seed(3)
    x = torch.cat([torch.randn(4000, 12), 5e4 + 1e4 * torch.randn(4000, 1)], 1)
    sizes = [13, 64, 64]
    layers = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(64, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    found = diagnosed_by(
        model,
        lambda step, index: (model(x[index])[:, 0] - x[index, 0]).abs().mean(),
        optimizer=optimizer,
        probe=x[:300],
    )
    assert found.label == "input_offset", found.text


@pytest.mark.parametrize("kind", ["steep", "head"])
def test_a_loss_that_is_far_too_steep_at_once_is_told_from_long_steps(kind: str) -> None:
    torch.manual_seed(0)
    model = plain()
    if kind == "head":
        nn.init.normal_(model[4].weight, std=20.0)  # type: ignore[arg-type]

    def loss_of(step: int, index: Tensor) -> Tensor:
        out = model(X[index])
        poisson = nn.functional.poisson_nll_loss(out[:, 0], 3e4 * (1.0 + Y[index]))
        return poisson if kind == "steep" else CE(out, Y[index])

    found = diagnosed_by(model, loss_of, lr=0.05, probe=X[:300])
    assert found.label == ("target_scale" if kind == "steep" else "weight_init"), found.text
    assert ("the first loss was" if kind == "steep" else "first outputs have an rms") in found.text


def lasts(model: Any, step: int) -> None:
    model.shift = float(torch.rand(())) if step > 30 else 0.0  # as a module that keeps its last loss


def test_a_number_that_goes_up_and_down_is_no_setting() -> None:
    found = moved_from(lasts)
    assert not found.events["text"].str.contains("shift").any(), found.events.to_string()


def test_running_statistics_that_training_moves_are_not_overwritten() -> None:
    """Also where every census comes in evaluation mode."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with harness.Recorder(model, optimizer=optimizer, census_every=None, evidence=True) as recorder:
        for step in range(60):
            stepped(recorder, optimizer, CE(model(X[64 * step :][:64]), Y[64 * step :][:64]))
            if step % 10 == 9:
                model.eval()
                recorder.census()
                model.train()
    assert not recorder.diagnose().events["text"].str.contains("running").any()


def test_a_norm_of_one_value_is_no_matter_of_the_weights() -> None:
    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm, self.b = nn.Linear(20, 16), nn.LayerNorm(1), nn.Linear(16, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.relu(self.norm(self.a(x)[..., None])[..., 0]))

    torch.manual_seed(0)
    model = One()
    model.norm.requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.01)
    found = diagnosed_by(model, lambda step, index: CE(model(X[index]), Y[index]), optimizer=optimizer)
    assert found.label in ("constant", "norm_stats"), found.text
    assert "16 by what stands behind their layer and leaves nothing of it" in found.text


@pytest.mark.parametrize(("times", "same"), [(1.0, True), (1.6, False)])
def test_inputs_that_grow_with_a_loss_are_not_called_the_same(times: float, same: bool) -> None:
    frame = rising(calm(), 5.0, "loss")
    first = events(rising(frame, times, "input_rms"))[0]
    assert first.column == "slow loss"
    assert ("and the inputs the same" in first.text) == same


def test_inputs_that_grow_from_the_first_step_on_are_blamed_for_a_divergence() -> None:
    torch.manual_seed(0)
    model = plain()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    growing: Callable[[int, Tensor], Tensor] = lambda step, rows: CE(model(X[rows] * (1 + step)), Y[rows])  # noqa: E731
    found = diagnosed_by(model, growing, steps=80, optimizer=optimizer)
    assert found.label == "input_shift", found
    assert "they grow all the time" in found.cause
