"""Parameters that are overwritten again and again are no event, unless units die just after it."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from small_trainings import inputs, plain, stepped
from step_tables import quiet
from torch import nn

import harness
from harness.attribution.events import events

X, Y = inputs()
CE = nn.functional.cross_entropy


def trained(
    write: Callable[[nn.Module, int], None], *, every: int = 20, jump: float = 0.05, weight_decay: float = 0.0
) -> harness.Diagnosis:
    """The diagnosis of a training whose learning rate jumps for four steps."""
    torch.manual_seed(0)
    model = plain()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=weight_decay)
    recorder = harness.Recorder(model, optimizer=optimizer, census_every=10, evidence=True, probe=X[:300])
    with recorder:
        for step in range(1, 301):
            optimizer.param_groups[0]["lr"] = jump if 150 <= step < 154 else 0.05
            rows = torch.randint(0, 4000, (64,))
            loss = CE(model(X[rows]), Y[rows])
            stepped(recorder, optimizer, loss)
            if step % every == 0:
                write(model, step)
    return recorder.diagnose()


def averaging() -> Callable[[nn.Module, int], None]:
    """Goes half of the way back to the last average, as Reptile does."""
    anchor: list[dict[str, torch.Tensor]] = []

    def write(model: nn.Module, step: int) -> None:
        if anchor:
            own = model.state_dict()
            model.load_state_dict({name: (value + anchor[0][name]) / 2 for name, value in own.items()})
        anchor[:] = [copy.deepcopy(model.state_dict())]

    return write


def test_averaging_is_not_blamed_for_what_a_learning_rate_does() -> None:
    found = trained(averaging(), jump=5.0)
    assert found.label == "step_size", found
    assert "learning rate rose" in found.cause


def test_nor_for_what_decay_does() -> None:
    found = trained(averaging(), weight_decay=0.5)
    assert found.label == "decay", found


def test_it_is_blamed_if_units_die_just_after_each() -> None:
    def closing(model: nn.Module, step: int) -> None:
        with torch.no_grad():
            for layer in (model[0], model[2]):  # pyright: ignore
                layer.bias[step // 15 - 1 : step // 15 + 1] -= 40

    found = trained(closing, every=30)
    assert found.label == "surgery", found
    assert "and again 9 times until step 301" in found.cause or "and again 8 times" in found.cause


@pytest.mark.parametrize(
    "sizes", [(6.0, 6.0, 6.0, 6.0, 6.0), (8.0, 6.0, 4.0, 2.0, 1.0)], ids=["equal", "falling"]
)
def test_recurring_writes_are_one_event(sizes: tuple[float, ...]) -> None:
    frame = quiet()
    for step, size in zip(range(40, 200, 30), sizes, strict=False):
        frame.loc[frame["step"] == step, "written_norm"] = size
    (event,) = events(frame)
    assert (event.step, event.label, event.again) == (40, "surgery", (70, 100, 130, 160))


def test_one_that_is_far_larger_is_an_event_of_its_own() -> None:
    frame = quiet()
    for step in range(40, 200, 30):
        frame.loc[frame["step"] == step, "written_norm"] = 1.0
    frame.loc[frame["step"] == 100, "written_norm"] = 15.0
    recurring, alone = events(frame)
    assert (recurring.step, recurring.again) == (40, (70, 130, 160, 190))
    assert (alone.step, alone.again) == (100, ())


def test_few_writes_of_very_different_size_do_not_recur() -> None:
    frame = quiet()
    for step, size in zip((40, 70, 100, 130), (8.0, 1.0, 8.0, 1.0), strict=True):
        frame.loc[frame["step"] == step, "written_norm"] = size
    assert [(event.step, event.again) for event in events(frame)] == [
        (40, ()),
        (70, ()),
        (100, ()),
        (130, ()),
    ]
