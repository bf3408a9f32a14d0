"""The inputs of a step are compared with those of like steps."""

from __future__ import annotations

import math

import pytest
import torch

from harness.attribution.input_moments import InputMoments


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


def test_several_tensors_count_alike_whatever_their_sizes() -> None:
    moments = InputMoments()
    image, number = torch.full((4, 100), 200.0), torch.full((4, 1), 0.5)
    for _ in range(3):
        moments.add(image, number)
        assert float(moments.take()[1]) == pytest.approx(200.0)
    moments.add(image, 30 * number)
    mean, rms = map(float, moments.take())
    assert rms == pytest.approx(200 * math.sqrt((1 + 900) / 2))
    assert mean == pytest.approx(200 * (1 + 30) / 2)
