"""Labels and sentences of real trainings with a fault in them, through the public API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import harness
from harness.attribution.evidence import FACTORS
from harness.attribution.labels import LABELS, MEANING

Change = Callable[[int, nn.Sequential, Tensor], Tensor]


def task() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    centres = torch.randn(5, 20, generator=draw)
    labels = torch.randint(0, 5, (2000,), generator=draw)
    return centres[labels] + torch.randn(2000, 20, generator=draw), labels


def diagnosed(
    lr: float = 0.1,
    before: Callable[[nn.Sequential], None] = lambda _: None,
    change: Change = lambda step, model, x: x,
    *,
    bias_lr: float = 1.0,
    decay: float = 0.0,
    momentum: float = 0.0,
    labels: Callable[[int, Tensor], Tensor] = lambda _, y: y,
    steps: int = 160,
    shift: float = 0.0,
) -> harness.Diagnosis:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 5))
    layers: list[Any] = [model[0], model[2], model[4]]
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
    before(model)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1]},
        {"params": [p for p in model.parameters() if p.ndim < 2], "lr": lr * bias_lr},
    ]
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=momentum, weight_decay=decay)
    x, y = task()
    x = x + shift
    order = torch.Generator().manual_seed(1)
    with harness.Recorder(
        model, optimizer=optimizer, census_every=20, probe=x[:400], evidence=True
    ) as recorder:
        for step in range(steps):
            index = torch.randint(400, 2000, (64,), generator=order)
            batch = change(step, model, x[index])
            loss = nn.functional.cross_entropy(model(batch), labels(step, y[index]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(loss=loss)
            if not torch.isfinite(loss):
                break
    return recorder.diagnose()


@torch.no_grad()
def low_biases(model: nn.Sequential) -> None:
    model[0].bias -= 12  # type: ignore[operator]


@torch.no_grad()
def low_weights(model: nn.Sequential) -> None:
    model[2].weight -= 0.3  # type: ignore[operator]


@torch.no_grad()
def overwrite(step: int, model: nn.Sequential, x: Tensor) -> Tensor:
    if step == 80:
        model[0].bias[:40] = -40  # type: ignore[index]
        model[0].weight[:40] *= -0.1  # type: ignore[index]
    return x


def test_a_healthy_training_is_blamed_for_nothing() -> None:
    found = diagnosed()
    assert found.label == "none"
    assert "Nothing to explain" in str(found)


def test_low_biases() -> None:
    found = diagnosed(before=low_biases)
    assert found.label == "bias_init"
    first = found.units[found.units["site"].eq("1") & found.units["born"]]
    assert len(first) > 40
    assert first["cause"].eq("bias_init").all()
    assert set(found.units["cause"]) <= {"bias_init", "upstream"}  # what is above a dead layer follows
    assert "born dead" in found.text


def test_low_weights() -> None:
    assert diagnosed(lr=0.01, before=low_weights).label == "weight_init"


def test_inputs_off_centre() -> None:
    assert diagnosed(shift=4.0, lr=0.05).label == "input_offset"


def test_inputs_that_move() -> None:
    found = diagnosed(change=lambda step, _, x: x - 9 if step >= 80 else x)
    assert found.label == "input_shift"
    assert found.events.iloc[0]["step"] == 81
    assert found.units["data"].max() > 0.5


def test_one_bad_batch() -> None:
    found = diagnosed(change=lambda step, _, x: -200 * x if step == 80 else x)
    assert found.label == "bad_batch"
    assert found.units["suddenness"].median() > 0.5


def test_a_learning_rate_that_is_too_high() -> None:
    found = diagnosed(lr=3.0)
    assert found.label == "step_size"
    assert "Not told apart" in found.text


def test_parameters_that_somebody_overwrote() -> None:
    found = diagnosed(change=overwrite, lr=0.01)
    assert found.label == "surgery"
    assert found.units["died_at"].median() == 81


def test_fast_biases() -> None:
    assert diagnosed(lr=0.1, bias_lr=1000.0).label == "bias_lr"


def test_decay() -> None:
    assert diagnosed(lr=0.1, decay=0.8).label == "decay"


def test_the_tables_have_their_columns_and_the_shares_of_a_unit_sum_to_one() -> None:
    found = diagnosed(lr=3.0)
    assert list(found.units.columns[:5]) == ["site", "unit", "cause", "born", "died_at"]
    shares = found.units[list(FACTORS)].dropna()
    assert np.allclose(shares.sum(axis=1), 1)
    assert found.units["suddenness"].dropna().between(0, 1).all()
    assert list(found.events.columns) == ["step", "label", "column", "ratio", "deaths", "text"]


def test_every_label_has_a_meaning() -> None:
    assert set(MEANING) == set(LABELS)


def test_labels_that_break_under_long_steps_are_the_cause_in_label_text_and_table() -> None:
    shuffled = torch.Generator().manual_seed(2)

    def labels(step: int, y: Tensor) -> Tensor:
        return y[torch.randperm(len(y), generator=shuffled)] if step >= 100 else y

    found = diagnosed(lr=0.1, momentum=0.9, labels=labels, steps=240)
    assert found.label == "labels"
    event = found.events.iloc[0]
    assert (event["step"], event["label"]) == (101, "labels")
    assert f"{event['deaths']:,} of {found.units['died_at'].count():,} dated deaths" in found.text
    assert event["text"] in found.text


def test_without_a_loss_the_labels_are_said_to_be_unknown() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 48), nn.ReLU(), nn.Linear(48, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=20.0)
    x, y = task()
    with harness.Recorder(model, optimizer=optimizer, census_every=10, evidence=True) as recorder:
        for k in range(30):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[k * 64 : k * 64 + 64]), y[k * 64 : k * 64 + 64]).backward()
            optimizer.step()
            recorder.step()
    assert "no loss was given" in str(recorder.diagnose())


def test_an_empty_history_is_refused() -> None:
    from harness.attribution.diagnosis import diagnose
    from harness.attribution.evidence import Evidence

    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    recorder = harness.Recorder(model, optimizer=optimizer, evidence=True)
    evidence = recorder.evidence()
    assert isinstance(evidence, Evidence)
    with pytest.raises(ValueError, match="at least one census"):
        diagnose(recorder.history(), evidence)
