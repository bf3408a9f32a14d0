"""Units that closed within the last window count as alive, and are told of."""

from __future__ import annotations

import pytest
import torch
from small_trainings import inputs, plain, stepped
from torch import nn

import harness

X, Y = inputs()


def diagnosed(
    at: int, *, steps: int = 200, census_every: int = 100, probe: bool = False
) -> harness.Diagnosis:
    """The diagnosis of a training in which 30 units are closed before a step, and one more follows."""
    torch.manual_seed(0)
    model = plain()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    held_out = X[:300] if probe else None
    recorder = harness.Recorder(
        model, optimizer=optimizer, census_every=census_every, evidence=True, probe=held_out
    )
    with recorder:
        for step in range(1, steps + 1):
            if step == at:
                with torch.no_grad():
                    for layer in (model[0], model[2]):
                        layer.bias[:15] -= 50  # pyright: ignore
            rows = torch.randint(0, 4000, (64,))
            loss = nn.functional.cross_entropy(model(X[rows]), Y[rows])
            stepped(recorder, optimizer, loss)
    return recorder.diagnose()


def test_units_that_close_within_the_last_window_are_told_of() -> None:
    found = diagnosed(151)
    assert found.label == "none"
    assert "31 units that count as alive closed within the last window of 100 steps" in found.text
    assert "half of them for its last 50 steps or more" in found.text
    assert found.cause.startswith("No cause is given yet")


@pytest.mark.parametrize(
    ("at", "options"),
    [(198, {}), (1000, {}), (151, {"probe": True}), (101, {})],
    ids=["too late to tell", "never", "a probe shows them", "the window shows them"],
)
def test_nothing_is_told_where_there_is_nothing_to_tell(at: int, options: dict[str, bool]) -> None:
    found = diagnosed(at, **options)
    assert "count as alive" not in found.text
