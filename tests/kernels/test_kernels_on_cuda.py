"""The GPU's kernels on a real GPU, against numpy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from expected import GATES, check, expected

from harness.activations.gates import Gate
from harness.kernels import dispatch as kernels
from harness.kernels import triton as fused
from harness.kernels.accumulators import GRADIENT, Accumulators

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU (torch.cuda)")

SHAPES = [(1, 1), (4096, 513), (70_000, 64), (300, 20, 7), (33, 5, 31), (64, 32, 3136), (3, 2, 100_001)]


@pytest.fixture(autouse=True)
def kernels_work() -> Iterator[None]:
    """The plain way behind them would pass too."""
    yield
    assert not fused._state["broken"]


@pytest.mark.parametrize("dtype", fused.KINDS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("odd", ["", "nan", "-inf", "huge"])
def test_kernels_count_what_numpy_counts(shape: tuple[int, ...], dtype: torch.dtype, odd: str) -> None:
    for shift, gate in ((0.0, "hole"), (100.0, "relu")):
        z = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) + shift).to(dtype)
        if odd:
            extreme = 1e150 if dtype == torch.float64 else torch.finfo(dtype).max
            z.view(-1)[z.numel() // 2] = extreme if odd == "huge" else float(odd)
        axis, there = 1 - z.ndim, z.cuda()
        assert fused.serves(there)
        sums = Accumulators(shape[1], "cuda")
        kernels.accumulate(sums, there, axis, GATES[gate])
        kernels.accumulate_gradient(sums, there, axis)
        back = Accumulators(shape[1], "cpu")
        back.counts.copy_(sums.counts)
        back.sums.copy_(sums.sums)
        check(back, expected(z, axis, GATES[gate]), tolerance=3e-5)
        squares = z.double().movedim(axis, 0).reshape(shape[1], -1).square().sum(1)
        torch.testing.assert_close(back.sums[GRADIENT], squares, rtol=1e-5, atol=0.0, equal_nan=True)
        again = Accumulators(shape[1], "cuda")
        kernels.accumulate(again, there, axis, GATES[gate])
        assert torch.equal(again.sums[:3], sums.sums[:3])  # the same bits


def test_layouts_and_a_gate_for_each_unit() -> None:
    z = torch.randn(6, 8, 9, 7)
    low = torch.tensor([0.0, -torch.inf] * 4)
    for there in (z.cuda(), z.cuda().to(memory_format=torch.channels_last), z.cuda()[:, :, ::2, 1:]):
        sums, back = Accumulators(8, "cuda"), Accumulators(8, "cpu")
        kernels.accumulate(sums, there, -3, Gate(low=low.cuda()))
        back.counts.copy_(sums.counts)
        back.sums.copy_(sums.sums)
        check(back, expected(there.cpu(), -3, Gate(low=low)), tolerance=1e-5)
