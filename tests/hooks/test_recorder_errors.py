"""Wrong arguments and calls out of order."""

from __future__ import annotations

from typing import Any

import pytest
from small_nets import small, x

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
