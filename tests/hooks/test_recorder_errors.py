"""Wrong arguments and calls out of order."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from small_nets import small, x
from torch import nn

import harness


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"model": lambda x: x}, TypeError),
        ({"model": None}, TypeError),
        ({"optimizer": "sgd"}, TypeError),
        ({"optimizer": [1]}, TypeError),
        ({"census_every": 0}, ValueError),
        ({"census_every": -3}, ValueError),
        ({"census_every": 2.5}, (TypeError, ValueError)),
        ({"observe": "test"}, ValueError),
        ({"gate_eps": -1.0}, ValueError),
        ({"gate_eps": float("nan")}, ValueError),
    ],
)
def test_arguments(arguments: dict[str, Any], kind: type[Exception]) -> None:
    everything: Any = {"model": small()} | arguments
    with pytest.raises(kind):
        harness.Recorder(**everything)


def test_calls_out_of_order() -> None:
    model = small()
    recorder = harness.Recorder(model)
    with pytest.raises(RuntimeError):
        recorder.step()
    with pytest.raises(RuntimeError):
        recorder.census()
    with recorder:
        model(x())
        with pytest.raises(RuntimeError):
            recorder.__enter__()
        recorder.step()
    with pytest.raises(RuntimeError):
        recorder.step()
    assert set(recorder.census().n) == {10}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"thresholds": 3}, "thresholds: expected harness.Thresholds, but got int"),
        ({"thresholds": {}}, "thresholds: expected harness.Thresholds, but got dict"),
        ({"axis": 3}, "axis: expected a mapping"),
        ({"axis": {1: 0}}, "axis: expected site names and whole numbers, but got 1: 0"),
        ({"axis": {"a": "b"}}, "axis: expected site names and whole numbers"),
        ({"statistics": 3}, "statistics: expected a list"),
        ({"statistics": "x"}, "statistics: expected a list"),
        ({"statistics": [3]}, "statistics: expected objects with zero, update"),
        ({"gradients": "x"}, "gradients: expected True or False, but got 'x'"),
        ({"per_call": 1}, "per_call: expected True or False, but got 1"),
        ({"root_only": None}, "root_only: expected True or False, but got None"),
        ({"across_ranks": "x"}, "across_ranks: expected True, False or None, but got 'x'"),
    ],
)
def test_options_of_other_types_are_refused_at_once(options: dict[str, Any], told: str) -> None:
    with pytest.raises(TypeError, match=re.escape(told)):
        harness.Recorder(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), **options)


def test_a_state_that_is_none_is_refused() -> None:
    with pytest.raises(TypeError, match="state: expected that of a Recorder, but got NoneType"):
        harness.Recorder(nn.ReLU()).load_state_dict(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"stream": None}, TypeError, "expected the windows by site as stream, but got NoneType"),
        ({"probe": 3}, TypeError, "expected the windows by site as probe, but got int"),
        ({"probe": []}, TypeError, "expected the windows by site as probe, but got list"),
        ({"stream": {"1": None}}, TypeError, "expected a mapping as stream of 1, but got NoneType"),
        ({"stream": {"1": {"site": {}}}}, ValueError, "stream of 1 lacks sums"),
        ({"steps": -7}, ValueError, "expected at least 0 steps, but got -7"),
        ({"steps": "3"}, TypeError, "expected a whole number of steps, but got str"),
        ({"steps": None}, TypeError, "expected a whole number of steps, but got NoneType"),
        ({"steps": 1.5}, TypeError, "expected a whole number of steps, but got float"),
    ],
)
def test_a_state_with_other_parts_is_refused_and_changes_nothing(
    change: dict[str, Any], error: type[Exception], told: str
) -> None:
    recorder = harness.Recorder(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    with recorder:
        recorder._model(torch.randn(3, 2))
        recorder.step()
        with pytest.raises(error, match=re.escape(told)):
            recorder.load_state_dict({**recorder.state_dict(), **change})
        assert recorder.steps == 1
        assert recorder.census().n.tolist() == [3, 3]


def test_detach_keeps_what_was_recorded() -> None:
    recorder = harness.Recorder(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    recorder.attach()
    recorder._model(torch.randn(3, 2))
    recorder.step()
    recorder.detach()
    assert recorder.census().n.tolist() == [3, 3]


@pytest.mark.parametrize("value", ["x", [1.0], {}])
def test_a_step_takes_numbers_alone(value: Any) -> None:
    model = small()
    with harness.Recorder(model, census_every=None) as recorder:
        model(x())
        with pytest.raises(
            TypeError, match=f"loss: expected a number or a tensor, but got {type(value).__name__}"
        ):
            recorder.step(loss=value)
        recorder.step(loss=torch.ones(1))


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        (3, "but got int"),
        (nn.MSELoss, "but got the class MSELoss"),
        (lambda output, batch: output, r"it returned a tensor of shape \(10, "),
        (lambda output, batch: 1.0, "it returned float"),
        (lambda output, batch: output.detach().sum(), "with a graph"),
    ],
)
def test_a_scan_takes_a_function_as_loss(loss: Any, told: str) -> None:
    with pytest.raises((TypeError, ValueError), match=rf"loss: expected a function .*{told}"):
        harness.scan(small(), x(), loss=loss)


def test_masks_that_are_too_many() -> None:
    with pytest.raises(ValueError, match="mask: expected one for each batch, but got 5 for 1"):
        harness.scan(small(), x(), mask=[torch.ones(10)] * 5)


def test_an_axis_of_no_site() -> None:
    with pytest.warns(UserWarning, match="axis: no site is named 'nope', only 1"):
        harness.scan(small(), x(), axis={"nope": 1})


def test_a_threshold_that_is_no_number() -> None:
    with pytest.raises(ValueError, match="but got nan among them"):
        harness.declare_activation(nn.Identity, threshold=torch.tensor([0.0, torch.nan]))
