"""The inputs of a step are compared with those of like steps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from harness.attribution.input_moments import InputMoments, moving_input


def test_the_inputs_of_a_step_are_pooled() -> None:
    moments = InputMoments()
    a, b = torch.full((6, 2), 1.0), torch.full((2, 2), 3.0)
    moments.add(a)
    moments.add(b)
    mean, rms = map(float, moments.take())
    assert (mean, rms) == pytest.approx((1.5, math.sqrt(3.0)))
    assert all(math.isnan(value) for value in moments.take())


def test_forwards_without_a_graph_count_only_where_none_has_one() -> None:
    moments = InputMoments()
    with torch.no_grad():
        moments.add(torch.full((4, 2), 9.0))
        assert float(moments.take()[0]) == 9.0
        moments.add(torch.full((4, 2), 9.0))
    moments.add(torch.ones(4, 2))
    assert float(moments.take()[0]) == 1.0
    with torch.no_grad():
        moments.add(torch.full((4, 2), 9.0))
    assert math.isnan(moments.take()[0])


def test_a_step_of_few_inputs_tells_nothing() -> None:
    moments = InputMoments()
    for _ in range(10):
        moments.add(torch.ones(32, 2))
        assert float(moments.take()[0]) == 1.0
    moments.add(torch.full((1, 2), 9.0))
    assert math.isnan(moments.take()[0])
    last = (math.nan, math.nan)
    for _ in range(60):  # another size becomes the usual one
        moments.add(torch.full((8, 2), 2.0))
        last = moments.take()
    assert float(last[0]) == 2.0


def test_of_several_inputs_the_one_that_moves_is_watched() -> None:
    draw = np.random.default_rng(0)
    still = np.stack([0.1 * draw.normal(size=100), 1 + 0.05 * draw.normal(size=100)], 1)
    shifted, once = still.copy(), still.copy()
    shifted[60:, 0] += 1.0
    once[40] *= 100.0
    mask = np.column_stack([np.full(100, np.nan), np.full(100, np.inf)])
    none = np.full((100, 2), np.nan)
    assert moving_input([still, shifted, none]) == 1
    assert moving_input([still, mask, once]) == 2
    assert moving_input([shifted, still, mask, none]) == 0
    assert moving_input([none, none]) == 0
