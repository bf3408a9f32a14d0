"""How units fall: the split of a step's change is exact, and each kind of death is told."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from experiments.falls import Trace, deaths, follow


def trace(*levels: float, upstream: tuple[float, ...] = ()) -> Trace:
    """One unit with these levels; what upstream moved is given step by step, 0 else."""
    level = np.array(levels)[:, None]
    moved = np.zeros((len(levels) - 1, 1))
    moved[: len(upstream), 0] = upstream
    return Trace(level, np.diff(level, axis=0) - moved)


def kind(one: Trace) -> str:
    (row,) = deaths(one).to_dict("records")
    return str(row["kind"])


def test_kinds_of_death() -> None:
    assert kind(trace(2.0, 2.1, 1.9, -0.5)) == "kick"
    assert kind(trace(2.0, 1.5, 1.1, 0.7, 0.3, -0.1)) == "drift"
    assert kind(trace(2.0, 2.0, -0.5, upstream=(0.0, -2.0))) == "upstream"
    both = trace(2.0, 2.0, -0.5, upstream=(0.0, -1.0))
    assert kind(both) == "kick", "own 1.5 of a fall of 2.5"


def test_only_lasting_deaths_of_units_once_alive_count() -> None:
    assert deaths(trace(-1.0, 2.0, -1.0)).empty, "born dead"
    assert deaths(trace(2.0, -1.0, 1.0)).empty, "alive at last"
    (row,) = deaths(trace(2.0, -1.0, 2.0, 2.0, -1.0, -2.0)).to_dict("records")
    assert row["step"] == 4
    assert row["length"] == 1


def test_a_jump_can_have_any_cause() -> None:
    (row,) = deaths(trace(2.0, 2.0, -0.5, upstream=(0.0, -2.0))).to_dict("records")
    assert row["jump"]


def test_the_split_is_exact_and_the_first_layer_has_no_upstream() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 1))
    layers = [layer for layer in model if isinstance(layer, nn.Linear)][:-1]
    x, y = torch.randn(20, 3), torch.randn(20, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(_: int) -> None:
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()

    first, second = follow(layers, x, step, 6)
    assert first.level.shape == (7, 5)
    assert second.own.shape == (6, 4)
    np.testing.assert_allclose(np.diff(first.level, axis=0), first.own, atol=1e-6)
    assert not np.allclose(np.diff(second.level, axis=0), second.own, atol=1e-4)
    with torch.no_grad():
        last = layers[1](layers[0](x).relu()).amax(0)
    np.testing.assert_allclose(second.level[-1], last.numpy(), atol=1e-6)


def test_upstream_alone_is_told_where_a_unit_itself_does_not_move() -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(3, 5), nn.Linear(5, 4)]
    x = torch.randn(20, 3)

    def step(_: int) -> None:
        with torch.no_grad():
            layers[0].bias.add_(0.1)

    _, second = follow(layers, x, step, 3)
    np.testing.assert_allclose(second.own, 0, atol=1e-6)
    assert np.abs(np.diff(second.level, axis=0)).max() > 0.01
