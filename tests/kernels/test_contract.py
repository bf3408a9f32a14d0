"""One contract for every kernel: the same cases against a slow reference in float64.

Triton's kernels run on the CPU by its interpreter, in a process of their own: see test_triton.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from expected import GATES, open_share
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.activations.gates import Gate
from harness.kernels import dispatch, traced, triton
from harness.kernels.accumulators import ACTIVE, GRADIENT, INPUTS_SINCE_ACTIVE, Accumulators
from harness.kernels.countable import Uncountable
from harness.kernels.prepared import prepare
from harness.kernels.statistics import UnitStatistics, empty, finalise, merge

Forward = Callable[..., int]
Backward = Callable[[Accumulators, Tensor, Any], int]
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
KERNELS: dict[str, tuple[Forward, Backward]] = {
    "triton": (triton.accumulate, triton.accumulate_gradient),
    "numba": (dispatch.accumulate, dispatch.accumulate_gradient),
    "traced": (traced.accumulate, traced.accumulate_gradient),
}
NAMES = ["triton"] if INTERPRETED else ["numba", "traced"]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
LAZY_ZEROS = torch._efficientzerotensor  # pyright: ignore[reportPrivateImportUsage]
EXAMPLES = 15 if INTERPRETED else 60

pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # numpy under the interpreter: overflow
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support"),
]


def reference(z: Tensor, axes: tuple[int, ...], gate: Gate) -> dict[str, np.ndarray]:
    """The census columns by two passes in float64."""
    values = z.double().numpy()
    axes = axes if values.ndim else ()
    units = np.moveaxis(values, axes, range(len(axes)))
    units = units.reshape(int(np.prod(units.shape[: len(axes)])), -1)
    finite = np.isfinite(units)
    count = finite.sum(1)
    if isinstance(gate.low, Tensor):
        gate = gate._replace(low=gate.low.double().numpy().reshape(-1, 1))
    opened = open_share(units, gate)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        mean = np.where(finite, units, 0).sum(1) / count
        beside = np.where(finite, units - mean[:, None], 0)
        mean = mean + beside.sum(1) / count  # what rounding left
        std = np.sqrt((np.where(finite, units - mean[:, None], 0) ** 2).sum(1) / count)
    largest = np.where(finite, units, -np.inf).max(1, initial=-np.inf)
    return {
        "n": np.full(len(units), units.shape[1]),
        "active": opened.sum(1),
        "non_finite": (~finite).sum(1),
        "silent_for": np.where(opened.any(1), 0, units.shape[1]),
        "mean": np.where(count > 0, mean, np.nan),
        "std": np.where(count > 0, std, np.nan),
        "max": np.where(count > 0, largest, np.nan),
    }


def counted(name: str, z: Tensor, axes: Any, gate: Gate, units: int, calls: int = 1) -> UnitStatistics:
    statistics = empty(units)
    forward, backward = KERNELS[name]
    for part in z.chunk(calls) if calls > 1 else (z,):
        statistics.n += forward(statistics.running, part, axes, gate)
        statistics.grad_n += backward(statistics.running, part, axes)
    return statistics


def check(
    statistics: UnitStatistics, z: Tensor, axes: tuple[int, ...], gate: Gate, rtol: float = 1e-4
) -> None:
    columns, want = finalise(statistics), reference(z, axes, gate)
    for name in ("n", "active", "non_finite", "max"):
        np.testing.assert_array_equal(columns[name], want[name], err_msg=name)
    atol = 1e-5 * np.nan_to_num(want["std"])
    eps = 1e-9 if z.dtype == torch.float64 else 1e-6  # of sums in float32, around a value of the unit
    assert (np.abs(columns["std"] - want["std"]) <= rtol * want["std"] + 1e-30)[
        want["std"] == want["std"]
    ].all()
    close = np.abs(columns["mean"] - want["mean"]) <= atol + eps * want["std"] + 1e-14 * np.abs(want["mean"])
    assert close[want["mean"] == want["mean"]].all()
    np.testing.assert_array_equal(np.isnan(columns["mean"]), np.isnan(want["mean"]))


def drawn(shape: tuple[int, ...], dtype: torch.dtype, seed: int, mean: float = 0.0) -> Tensor:
    z = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (z + mean).to(dtype)


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=EXAMPLES)
@given(
    shape=st.lists(st.sampled_from([1, 2, 3, 5, 16, 33]), min_size=1, max_size=4),
    data=st.data(),
    dtype=st.sampled_from(DTYPES),
    gate=st.sampled_from(sorted(GATES)),
    mean=st.sampled_from([0.0, -3.0, 100.0]),
    odd=st.sampled_from(["", "nan", "inf", "-inf", "huge", "constant", "all nan"]),
    seed=st.integers(0, 99),
)
def test_any_shape_and_axes(
    name: str,
    shape: list[int],
    data: st.DataObject,
    dtype: torch.dtype,
    gate: str,
    mean: float,
    odd: str,
    seed: int,
) -> None:
    while np.prod(shape) > (3000 if INTERPRETED else 40_000):
        shape[shape.index(max(shape))] = 2
    axes = tuple(data.draw(st.permutations(range(-len(shape), 0)))[: data.draw(st.integers(0, len(shape)))])
    z = drawn(tuple(shape), dtype, seed, mean)
    if odd == "constant":
        z[:] = mean
    elif odd == "all nan":
        z.select(0, 0).fill_(torch.nan)
    elif odd:
        huge = min(torch.finfo(dtype).max, 1e100)
        z.view(-1)[seed % z.numel()] = huge if odd == "huge" else float(odd)
    units = int(np.prod([shape[axis] for axis in axes]))
    statistics = counted(name, z, axes, GATES[gate], units)
    check(statistics, z, axes, GATES[gate])
    want = reference(z, axes, GATES[gate])["silent_for"]
    np.testing.assert_array_equal(statistics.counts[INPUTS_SINCE_ACTIVE].numpy(), want)


FAR = {
    torch.float16: (1e3, -1e3, 3.0),  # 16 bits cannot tell values apart that lie further out
    torch.bfloat16: (1e3, -1e3, 3.0),
    torch.float32: (1e8, -1e8, 1e4, 3.0),
    torch.float64: (1e8, -1e8, 1e4, 3.0),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("dtype", "mean"), [(dtype, mean) for dtype in FAR for mean in FAR[dtype]], ids=str)
@pytest.mark.parametrize("shape", [(300, 6), (20, 6, 7), (9, 6, 200)], ids=str)
def test_far_means(name: str, dtype: torch.dtype, shape: tuple[int, ...], mean: float) -> None:
    """Over several calls in one window."""
    z = drawn(shape, dtype, 1, mean) if dtype != torch.float32 else (drawn(shape, dtype, 1) * 20 + mean)
    z[0, 1] = torch.nan
    axes = (1 - z.ndim,)
    check(counted(name, z, axes, GATES["relu"], 6, calls=3), z, axes, GATES["relu"])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(64, 4, 500), (600, 4)], ids=str)
@pytest.mark.parametrize("place", ["first", "middle"])
def test_an_outlier_does_not_spoil_its_neighbours(name: str, shape: tuple[int, ...], place: str) -> None:
    for dtype in (torch.float16, torch.float32):
        z = drawn(shape, dtype, 0)
        z[0 if place == "first" else shape[0] // 2, 0] = 6e4
        axes = (1 - z.ndim,)
        check(counted(name, z, axes, GATES["relu"], 4), z, axes, GATES["relu"], rtol=2e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("view", ["channels_last", "transposed", "sliced", "expanded", "negated", "heads"])
def test_any_layout(name: str, view: str) -> None:
    z = drawn((6, 8, 5, 7), torch.float32, 0)
    z = {
        "channels_last": lambda: z.to(memory_format=torch.channels_last),
        "transposed": lambda: z.transpose(0, 1).contiguous().transpose(0, 1),
        "sliced": lambda: z[:, :, 1:4, ::2],
        "expanded": lambda: z[:1].expand(4, 8, 5, 7),
        "negated": lambda: torch.complex(z, z).conj().imag,
        "heads": lambda: z.permute(0, 2, 1, 3),
    }[view]()
    if name != "numba":
        z = z.resolve_neg()  # dispatch does so
    for axes in ((-3,), (-3, -1), (-1, -3), (-2, -1), (-4,)):
        units = int(np.prod([z.shape[axis] for axis in axes]))
        check(counted(name, z, axes, GATES["hole"], units), z.resolve_neg(), axes, GATES["hole"])


@pytest.mark.parametrize("name", NAMES)
def test_gates_of_each_unit_and_no_axes(name: str) -> None:
    z, low = drawn((7, 4, 3), torch.float32, 0), torch.tensor([0.0, -torch.inf, 0.5, -0.5])
    check(counted(name, z, (-2,), Gate(low=low), 4), z, (-2,), Gate(low=low))
    for one, axes in ((torch.tensor(2.0), ()), (torch.tensor(2.0), (-1,)), (z, ())):
        check(counted(name, one, axes, GATES["relu"], 1), one, axes, GATES["relu"])
    assert counted(name, z, -2, GATES["relu"], 4).n == 21  # a bare int


@pytest.mark.parametrize("name", [name for name in NAMES if name != "triton"])  # which dispatch spares
def test_no_rows(name: str) -> None:
    statistics = counted(name, torch.empty(0, 3), (-1,), GATES["relu"], 3)
    assert (statistics.n, statistics.grad_n) == (0, 0)
    assert statistics.counts.sum() == 0


@pytest.mark.parametrize("name", NAMES)
def test_repeated_calls_in_one_forward(name: str) -> None:
    sums, forward = Accumulators(3, "cpu"), KERNELS[name][0]
    forward(sums, torch.tensor([[1.0, -1.0, -1.0]]), -1, GATES["relu"])
    forward(sums, torch.tensor([[-1.0, 1.0, -1.0]]), -1, GATES["relu"], same_forward=True)
    assert sums.counts[INPUTS_SINCE_ACTIVE].tolist() == [0, 0, 2]
    forward(sums, torch.tensor([[-1.0, 1.0, -1.0]]), -1, GATES["relu"])
    assert sums.counts[INPUTS_SINCE_ACTIVE].tolist() == [1, 0, 3]
    assert sums.counts[ACTIVE].tolist() == [1, 2, 0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(70, 5), (4, 5, 3), (3, 5, 130)], ids=str)
def test_gradients(name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    g = drawn(shape, dtype, 0)
    g[:, 2] = 0
    rms = finalise(counted(name, g, (1 - g.ndim,), GATES["relu"], 5))["grad_rms"]
    want = g.double().movedim(1, 0).reshape(5, -1).square().mean(1).sqrt()
    np.testing.assert_allclose(rms, want, rtol=3e-6)
    assert rms[2] == 0


@pytest.mark.parametrize("name", NAMES)
def test_merged_windows_are_one(name: str) -> None:
    z = drawn((90, 4), torch.float64, 0) + torch.tensor([0.0, 1e8, -1e8, 1e4], dtype=torch.float64)
    parts = [
        counted(name, part, (-1,), GATES["relu"], 4)
        for part in (*z.split([1, 49, 40]), z[:0].new_empty(1, 4).fill_(torch.nan))
    ]
    merged = parts[3]
    for part in parts[:3]:
        merged = merge(merged, part)
    whole = torch.cat([z, torch.full((1, 4), torch.nan, dtype=torch.float64)])
    check(merged, whole, (-1,), GATES["relu"])


@pytest.mark.skipif(INTERPRETED, reason="one process is enough")
def test_what_cannot_be_counted_says_why() -> None:
    z = torch.randn(4, 3)
    cases = {
        "nested": torch.nested.nested_tensor([z, z]),
        "layout sparse_coo": z.to_sparse(),
        "layout mkldnn": z.to_mkldnn(),
        "complex64": z.to(torch.complex64),
        "meta": z.to("meta"),
        "without units": z[:, :0],
        "2 units, but the site has 3": z[:, :2],
    }
    freed = z.clone()
    freed.untyped_storage().resize_(0)
    cases["freed"] = freed
    sums = Accumulators(3, "cpu")
    for reason, value in cases.items():
        for count in (
            lambda v: dispatch.accumulate(sums, v, -1, GATES["relu"]),
            lambda v: dispatch.accumulate_gradient(sums, v, -1),
        ):
            with pytest.raises(Uncountable, match=reason):
                count(value)
        assert prepare(empty(3), value, -1, GATES["relu"], print) is None
    with pytest.raises(Uncountable, match="function transform"):
        torch.func.vmap(lambda v: dispatch.accumulate(sums, v, -1, GATES["relu"]))(z[None])
    with pytest.raises(ValueError, match="between -2 and -1"):
        dispatch.accumulate(sums, z, -3, GATES["relu"])
    assert sums.counts.sum() == 0


@pytest.mark.skipif(INTERPRETED, reason="one process is enough")
def test_lazy_zeros_are_zeros() -> None:
    statistics = empty(3)
    dispatch.accumulate(statistics.running, LAZY_ZEROS(4, 3), -1, GATES["relu"])
    assert statistics.running.counts[INPUTS_SINCE_ACTIVE].tolist() == [4, 4, 4]


@pytest.mark.skipif(INTERPRETED, reason="one process is enough")
def test_a_prepared_call_takes_only_what_is_alike() -> None:
    z = torch.randn(4, 3)
    call = prepare(empty(3), z, -1, GATES["relu"], print)
    assert call is not None
    freed = z.clone()
    freed.untyped_storage().resize_(0)
    negated = torch.complex(z, z).conj().imag
    others = [z.to_sparse(), z.to_mkldnn(), z.to("meta"), z.int(), z.T, torch.nn.Parameter(z), freed, negated]
    others += [LAZY_ZEROS(4, 3), torch.nested.nested_tensor([z, z]), z.to_sparse_csr()]
    for other in others:
        assert not call.forward(other, False)
    assert call.forward(z, False)


@pytest.mark.skipif(INTERPRETED, reason="one process is enough")
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch 2.11's own
@pytest.mark.parametrize("gate", ["relu", "hole"])
def test_traces_without_a_graph_break(gate: str) -> None:
    """As a pre-hook does it: forward counts, and the gradient of z is counted in the backward."""

    class Tap(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, z: Tensor, leaf: Tensor) -> Tensor:
            return z.view_as(z)

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Any:
            return gradients[0], traced.squares(gradients[0], (-1,))

    def step(x: Tensor, weight: Tensor, statistics: UnitStatistics, leaf: Tensor) -> Tensor:
        z = x @ weight
        traced.accumulate(statistics.running, z.detach(), (-1,), GATES[gate])
        return Tap.apply(z, leaf).relu().sum()  # type: ignore[no-untyped-call]

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    x, found = drawn((9, 4), torch.float32, 0, 5.0), []
    for function in (step, compiled):
        statistics, weight = empty(6), drawn((4, 6), torch.float32, 1).requires_grad_()
        leaf = torch.zeros(6, dtype=torch.float64, requires_grad=True)
        for _ in range(3):
            function(x, weight, statistics, leaf).backward()
        assert leaf.grad is not None
        statistics.sums[GRADIENT] += leaf.grad
        statistics.n = statistics.grad_n = 27
        found.append(finalise(statistics))
    for name, column in found[0].items():
        np.testing.assert_allclose(found[1][name], column, err_msg=name)
