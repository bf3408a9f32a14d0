"""UnitStatistics: merging in parts gives what counting in one go gives."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.activations.gates import Gate
from harness.kernels.statistics import empty, finalise, merge, update, update_gradient


@settings(deadline=None)
@given(cuts=st.lists(st.integers(0, 40), max_size=4), seed=st.integers(0, 1000), positions=st.integers(1, 3))
def test_merged_parts_equal_the_whole(cuts: list[int], seed: int, positions: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(40, 5, positions, generator=generator)
    z[:, 3] = -1.0
    whole, parts = empty(5), empty(5)
    edges = [0, *sorted(cuts), 40]
    for start, stop in pairwise(edges):
        part = empty(5)
        for statistics in (whole, part):
            update(statistics, z[start:stop], Gate(low=0.0), -2)
            update_gradient(statistics, z[start:stop], -2)
        parts = merge(parts, part)
    for name, column in finalise(whole).items():
        np.testing.assert_allclose(finalise(parts)[name], column, rtol=1e-6, atol=1e-7, err_msg=name)


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="got 2 and 3"):
        merge(empty(2), empty(3))
