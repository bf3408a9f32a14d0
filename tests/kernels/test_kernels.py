"""The compiled loops against numpy, over shapes, layouts, gates and values."""

import numpy as np
import pytest
import torch
from expected import GATES, check, expected
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.activations.gates import Gate
from harness.kernels.accumulators import GRADIENT, INPUTS_SINCE_ACTIVE, Accumulators
from harness.kernels.dispatch import accumulate, accumulate_gradient, unit_squares
from harness.kernels.prepared import prepare
from harness.kernels.statistics import empty


@settings(deadline=None, max_examples=60)
@given(
    rows=st.sampled_from([1, 2, 15, 16, 17, 33, 255, 256, 257, 600]),
    units=st.sampled_from([1, 2, 3, 15, 16, 17, 33, 64, 513]),
    positions=st.sampled_from([0, 1, 2, 3, 16, 49, 127, 128, 129, 200]),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    gate=st.sampled_from(sorted(GATES)),
    shift=st.sampled_from([0.0, -3.0, 100.0]),
    odd=st.sampled_from(["", "nan", "inf", "-inf", "huge", "dead"]),
    seed=st.integers(0, 99),
)
def test_loops_count_what_numpy_counts(
    rows: int, units: int, positions: int, dtype: torch.dtype, gate: str, shift: float, odd: str, seed: int
) -> None:
    if rows * units * max(1, positions) > 300_000:
        rows = 3
    shape = (rows, units, positions) if positions else (rows, units)
    z = (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + shift).to(dtype)
    if odd == "dead":
        z[:, -1] = -z[:, -1].abs()
    elif odd:
        z.reshape(-1)[seed % z.numel()] = 3e38 if odd == "huge" else float(odd)
    axis = -1 if z.ndim == 2 else -2
    sums = Accumulators(units, "cpu")
    n = accumulate(sums, z, axis, GATES[gate])
    assert n == rows * max(1, positions)
    want = expected(z, axis, GATES[gate])
    check(sums, want, tolerance=3e-5)
    np.testing.assert_array_equal(
        sums.counts[INPUTS_SINCE_ACTIVE].numpy(), np.where(want["active"] > 0, 0, n)
    )


@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 3), (3, 40, 150), (300, 600)])
def test_a_gate_of_its_own_for_every_unit(shape: tuple[int, ...]) -> None:
    z = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    low = torch.where(torch.arange(shape[1]) % 2 == 0, 0.0, -torch.inf)
    sums = Accumulators(shape[1], "cpu")
    accumulate(sums, z, 1 - z.ndim, Gate(low=low))
    check(sums, expected(z, 1 - z.ndim, Gate(low=low)), tolerance=1e-5)


@settings(deadline=None, max_examples=40)
@given(
    rows=st.sampled_from([1, 3, 16, 17, 70]),
    units=st.sampled_from([1, 3, 16, 33, 513]),
    positions=st.sampled_from([0, 1, 5, 16, 127, 128, 150]),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.float16]),
    scale=st.sampled_from([1.0, 1e-30, 1e15]),
)
def test_squares_of_gradients(
    rows: int, units: int, positions: int, dtype: torch.dtype, scale: float
) -> None:
    shape = (rows, units, positions) if positions else (rows, units)
    g = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    g = (g * (scale if dtype != torch.float16 else 1.0)).to(dtype)
    g[:, units // 2] = 0
    sums = Accumulators(units, "cpu")
    axis = -1 if g.ndim == 2 else -2
    assert accumulate_gradient(sums, g, axis) == rows * max(1, positions)
    want = np.moveaxis(g.double().numpy(), axis, 0).reshape(units, -1)
    np.testing.assert_allclose(sums.sums[GRADIENT].numpy(), (want**2).sum(1), rtol=1e-12)
    assert sums.sums[GRADIENT][units // 2] == 0


def test_squares_of_a_units_weights() -> None:
    for shape in [(3, 1), (17, 9), (5, 3, 3, 3), (4, 400)]:
        weight, bias = torch.randn(shape), torch.randn(shape[0])
        want = weight.double().reshape(shape[0], -1).square().sum(1) + bias.double().square()
        torch.testing.assert_close(unit_squares(weight, bias), want)


@pytest.mark.parametrize("view", ["channels_last", "transposed", "sliced", "expanded"])
def test_any_layout_in_memory(view: str) -> None:
    z = torch.randn(6, 8, 5, 5, generator=torch.Generator().manual_seed(0))
    z = {
        "channels_last": lambda: z.to(memory_format=torch.channels_last),
        "transposed": lambda: z.transpose(0, 1).contiguous().transpose(0, 1),
        "sliced": lambda: z[:, :, 1:4, ::2],
        "expanded": lambda: z[:1].expand(4, 8, 5, 5),
    }[view]()
    sums = Accumulators(8, "cpu")
    accumulate(sums, z, -3, GATES["relu"])
    check(sums, expected(z, -3, GATES["relu"]), tolerance=1e-5)


def test_the_fast_path_copies_what_the_loops_cannot_read() -> None:
    z = torch.randn(4, 3, 10, 5)[:, :, ::2]
    for batch in (z, z.bfloat16()):
        statistics = empty(3)
        call = prepare(statistics, batch, -3, GATES["relu"], print)
        assert call is not None
        assert call.forward(batch, False)
        check(statistics.running, expected(batch.float(), -3, GATES["relu"]), tolerance=1e-5)


def test_the_fast_path_refuses_what_is_not_alike() -> None:
    z = torch.randn(4, 3, 5, 5)
    statistics = empty(3)
    back: list[Tensor] = []
    call = prepare(statistics, z, -3, GATES["relu"], back.append)
    assert call is not None
    assert call.forward(z.clone(), False)
    for other in (z[:2], z.double(), z.transpose(2, 3), z.to(memory_format=torch.channels_last)):
        assert not call.forward(other, False)
    call.backward(z)
    call.backward(z.transpose(2, 3))  # in another memory layout
    call.backward(z.to(memory_format=torch.channels_last))
    assert not back
    call.backward(z.double())
    call.backward(z[:2])
    assert len(back) == 2
    assert statistics.grad_n == 300
    squares = 3 * z.double().square().sum((0, 2, 3))
    assert statistics.sums[GRADIENT].tolist() == pytest.approx(squares.tolist())
    assert statistics.n == 100
    assert prepare(empty(3), z.to("meta"), -3, GATES["relu"], print) is None
    assert prepare(empty(4), z, -3, GATES["relu"], print) is None
    slopes = Gate(low=torch.zeros(2))
    assert prepare(empty(3), z, -3, lambda: slopes, print) is None
    seen = []

    def inside(v: Tensor) -> Tensor:
        seen.append(call.forward(v, False))
        return v.sum()

    torch.func.grad(inside)(z)
    torch.func.vmap(inside)(z[None])
    assert seen == [False, False]
