"""GPU kernels (Triton), second launch: the parts of a batch, summed over the units into a site's sums."""

# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false

from __future__ import annotations

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]


@triton.jit(do_not_specialize=["chunks", "n", "same_forward"])
def commit(
    parts, counts, sums, units, folded, chunks, n, same_forward, BLOCK_K: tl.constexpr, BLOCK_F: tl.constexpr
):
    """Add the parts of a batch to a site's counts (3, F) int64 and sums (5, F) float64.

    A unit has `folded` columns per part; `same_forward` and INPUTS_SINCE_ACTIVE as in `dispatch.accumulate`.
    """
    unit = tl.program_id(0) * BLOCK_F + tl.arange(0, BLOCK_F)
    there = unit < units
    row = chunks.to(tl.int64) * units * folded
    largest = tl.load(sums + 2 * units + unit, mask=there)
    head, tail = parts + unit * folded, parts + row - units * folded + unit * folded + folded - 1
    some = tl.load(head + row, mask=there, other=0.0) > 0
    shift = tl.where(
        some, tl.load(head + 5 * row, mask=there, other=0.0), tl.load(tail + 5 * row, mask=there, other=0.0)
    )  # of the first part if it has finite values, else of the last
    shift = tl.where(largest > float("-inf"), tl.load(sums + 4 * units + unit, mask=there), shift)
    opened = tl.zeros((BLOCK_F,), tl.float64)
    finite = tl.zeros((BLOCK_F,), tl.float64)
    total = tl.zeros((BLOCK_F,), tl.float64)
    squares = tl.zeros((BLOCK_F,), tl.float64)
    peak = tl.full((BLOCK_F,), float("-inf"), tl.float64)
    for start in range(0, chunks * folded, BLOCK_K):
        k = (start + tl.arange(0, BLOCK_K))[:, None]
        at = parts + (k // folded).to(tl.int64) * units * folded + unit[None, :] * folded + k % folded
        read = (k < chunks * folded) & there[None, :]
        n_part = tl.load(at + row, mask=read, other=0.0)
        part = tl.load(at + 2 * row, mask=read, other=0.0)
        d = tl.where(n_part > 0, tl.load(at + 5 * row, mask=read, other=0.0) - shift[None, :], 0.0)
        opened += tl.sum(tl.load(at, mask=read, other=0.0), 0)
        finite += tl.sum(n_part, 0)
        total += tl.sum(part + n_part * d, 0)
        squares += tl.sum(tl.load(at + 3 * row, mask=read, other=0.0) + d * (2 * part + n_part * d), 0)
        peak = tl.maximum(peak, tl.max(tl.load(at + 4 * row, mask=read, other=float("-inf")), 0))
    active = tl.load(counts + unit, mask=there)
    strange = tl.load(counts + units + unit, mask=there)
    silent = tl.load(counts + 2 * units + unit, mask=there)
    is_active = (opened > 0) | ((same_forward != 0) & (silent == 0))
    tl.store(counts + unit, active + opened.to(tl.int64), mask=there)
    tl.store(counts + units + unit, strange + n - finite.to(tl.int64), mask=there)
    tl.store(counts + 2 * units + unit, tl.where(is_active, 0, silent + n), mask=there)
    before = tl.load(sums + unit, mask=there)
    tl.store(sums + unit, before + total, mask=there)
    before = tl.load(sums + units + unit, mask=there)
    squares += before
    beyond = squares != squares  # exceeds the range of float64
    tl.store(sums + units + unit, tl.where(beyond, float("inf"), squares), mask=there)
    tl.store(sums + 2 * units + unit, tl.maximum(largest, peak), mask=there)
    tl.store(sums + 4 * units + unit, shift, mask=there)


@triton.jit(do_not_specialize=["chunks"])
def commit_squares(parts, sums, units, folded, chunks, BLOCK_K: tl.constexpr, BLOCK_F: tl.constexpr):
    """Add the parts of a batch of gradients to `sums` (F,) float64."""
    unit = tl.program_id(0) * BLOCK_F + tl.arange(0, BLOCK_F)
    there = unit < units
    squares = tl.zeros((BLOCK_F,), tl.float64)
    for start in range(0, chunks * folded, BLOCK_K):
        k = (start + tl.arange(0, BLOCK_K))[:, None]
        at = parts + (k // folded).to(tl.int64) * units * folded + unit[None, :] * folded + k % folded
        squares += tl.sum(tl.load(at, mask=(k < chunks * folded) & there[None, :], other=0.0), 0)
    tl.store(sums + unit, tl.load(sums + unit, mask=there) + squares, mask=there)
