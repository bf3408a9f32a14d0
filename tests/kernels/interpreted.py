"""The GPU's kernels on the CPU, by Triton's interpreter: run by test_triton.py in a process of its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from expected import GATES, check, expected
from torch import Tensor

from harness.activations.gates import Gate
from harness.kernels import dispatch as kernels
from harness.kernels import triton as fused
from harness.kernels.accumulators import (
    ACTIVE,
    GRADIENT,
    INPUTS_SINCE_ACTIVE,
    NON_FINITE,
    Accumulators,
    shifted,
)

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy under the interpreter: overflow

SHAPES = [(1, 1), (3, 5), (33, 17), (300, 20), (4, 3, 7), (2, 5, 31), (3, 4, 40), (2, 3, 300), (65, 2, 33)]
ODD = ["", "nan", "inf", "-inf", "huge", "dead", "all"]


def normal(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0, shift: float = 0.0) -> Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + shift).to(dtype)


def strange(z: Tensor, odd: str, place: int) -> Tensor:
    if odd == "dead":
        z[:, -1] = -z[:, -1].abs()
    elif odd == "all":
        z.fill_(torch.nan)
    elif odd:
        z.view(-1)[place % z.numel()] = torch.finfo(z.dtype).max if odd == "huge" else float(odd)
    return z


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("programs", [1024, 2], ids=["short blocks", "long blocks"])
def test_counts_what_numpy_counts(
    shape: tuple[int, ...], programs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "PROGRAMS", programs)
    axis, n = (-1 if len(shape) == 2 else -2), int(np.prod(shape)) // shape[1]
    for seed, odd in enumerate(ODD):
        if (seed + shape[0] + shape[1] + programs // 1024) % 2 == 0:
            continue
        dtype = fused.KINDS[(seed + shape[0]) % 4]
        gate, shift = sorted(GATES)[(seed + len(shape)) % 4], 100.0 * ((seed + shape[1]) % 2)
        z = strange(normal(shape, dtype, seed, shift), odd, seed)
        if odd == "huge" and dtype == torch.float64:
            z = z.clamp(-1e150, 1e150)  # beyond, squares are infinite
        sums = Accumulators(shape[1], "cpu")
        assert fused.accumulate(sums, z, axis, GATES[gate]) == n
        want = expected(z, axis, GATES[gate])
        check(sums, want, tolerance=3e-5)
        np.testing.assert_array_equal(
            sums.counts[INPUTS_SINCE_ACTIVE].numpy(), np.where(want["active"] > 0, 0, n)
        )


@pytest.mark.parametrize("shape", [(40, 6), (5, 6, 3), (3, 6, 50)], ids=str)
@pytest.mark.parametrize("odd", ODD)
def test_is_what_the_loops_count(shape: tuple[int, ...], odd: str) -> None:
    """Over calls in one window, with a gate for each unit and repeated calls in one forward."""
    low = torch.tensor([0.0, -torch.inf] * 3)
    dtype = fused.KINDS[(ODD.index(odd) + len(shape)) % 4]
    ours, loops, n = Accumulators(6, "cpu"), Accumulators(6, "cpu"), 0
    for call in range(3):
        z = strange(normal(shape, dtype, call), odd if call == 1 else "", 7)
        z[:, 4] = -1  # silent throughout
        z[:, 2] = 1 if call == 0 else -1  # loud, then silent in the same forward
        for sums, count in ((ours, fused.accumulate), (loops, kernels.accumulate)):
            n += count(sums, z, 1 - z.ndim, Gate(low=low), same_forward=call == 1)
    torch.testing.assert_close(ours.counts, loops.counts, rtol=0, atol=0)
    found, wanted = (shifted(s.sums, n // 2 - s.counts[NON_FINITE], 0.0) for s in (ours, loops))
    torch.testing.assert_close(found[:3], wanted[:3], rtol=3e-5, atol=1e-4, equal_nan=True)


def test_one_slope_for_all_units() -> None:
    z = normal((30, 4), torch.bfloat16)
    for low in (0.0, -torch.inf):
        sums = Accumulators(4, "cpu")
        fused.accumulate(sums, z, -1, Gate(low=torch.tensor([low])))
        assert sums.counts[ACTIVE].tolist() == (z > low).sum(0).tolist()


@pytest.mark.parametrize("view", ["channels_last", "transposed", "sliced", "expanded", "no positions"])
def test_any_layout_in_memory(view: str) -> None:
    z = normal((6, 8, 5, 7), torch.float32)
    z = {
        "channels_last": lambda: z.to(memory_format=torch.channels_last),
        "transposed": lambda: z.transpose(0, 1).contiguous().transpose(0, 1),
        "sliced": lambda: z[:, :, 1:4, ::2],
        "expanded": lambda: z[:1].expand(4, 8, 5, 7),
        "no positions": lambda: z[:, :, :1, :1],
    }[view]()
    sums = Accumulators(8, "cpu")
    fused.accumulate(sums, z, -3, GATES["relu"])
    fused.accumulate_gradient(sums, z, -3)
    check(sums, expected(z, -3, GATES["relu"]), tolerance=1e-5)
    np.testing.assert_allclose(sums.sums[GRADIENT], z.double().square().sum((0, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("dtype", fused.KINDS, ids=str)
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e25])
def test_squares_of_gradients(dtype: torch.dtype, scale: float) -> None:
    for shape in [(70, 5), (3, 5, 60) if scale == 1 else (4, 5, 3)]:
        g = normal(shape, torch.float64) * (1.0 if dtype == torch.float16 else scale)
        g[:, 2] = 0
        g[:, 3] = g[:, 3] * 1e-5  # fainter than its neighbours
        g = g.to(dtype)
        sums = Accumulators(5, "cpu")
        assert fused.accumulate_gradient(sums, g, 1 - g.ndim) == g.numel() // 5
        want = g.double().movedim(1, 0).reshape(5, -1).square().sum(1)
        torch.testing.assert_close(sums.sums[GRADIENT], want, rtol=3e-6, atol=0.0)
        assert sums.sums[GRADIENT].gt(0).tolist() == [True, True, False, True, True]


def test_an_infinite_gradient_is_seen_in_its_unit_alone() -> None:
    g = normal((40, 3), torch.float16)
    g[5, 1], g[6, 2] = torch.inf, torch.nan
    sums = Accumulators(3, "cpu")
    fused.accumulate_gradient(sums, g, -1)
    squares = sums.sums[GRADIENT]
    assert squares[0] > 0
    assert squares[1] == torch.inf
    assert squares[2].isnan()


def test_the_same_bits_every_time() -> None:
    z = normal((500, 7), torch.float32)
    found = []
    for _ in range(2):
        sums = Accumulators(7, "cpu")
        fused.accumulate(sums, z, -1, GATES["hole"])
        fused.accumulate_gradient(sums, z, -1)
        found.append(sums.sums)
    assert torch.equal(*found)
