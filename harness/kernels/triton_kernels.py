"""GPU kernels (Triton): one pass over a batch; a second launch (`triton_reduction.py`) adds up the parts.

Imported only by `triton.py`, and only on a GPU: a machine without one has no Triton.

A batch is (A, F, P), contiguous, with W = F · P values per row. A program reads a block of rows and
neighbouring columns, and sums lane by lane around a typical value, in float32 unless z is float64; lanes are
added in float64. A block with a non-finite sum, or whose typical value turns out not to be typical, is
counted again in float64 around its mean. Each program writes its own part: results do not depend on the order
in which programs run, so they are bitwise reproducible.

Short P (LONG false): a lane is a column, and the second launch adds up the P columns of a unit. Long P: all
lanes of a program belong to one unit.
"""

# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false

from __future__ import annotations

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

from harness.kernels.triton_reduction import commit, commit_squares

__all__ = ["commit", "commit_squares", "observe", "square", "tl"]  # what `triton.py` uses

# A part is (6, chunks, columns or units) float64: open, finite, sum and squares around shift, maximum, shift.
FAR = tl.constexpr(64.0)  # if mean² exceeds this many variances, squares around the shift are inaccurate
SMALLER = tl.constexpr(8)  # factor of fewer rows at once in float64, to leave the registers to the usual path


@triton.jit
def _is_open(v, low, high, hole_low, hole_high, SIMPLE: tl.constexpr):
    opened = v > low
    if not SIMPLE:
        opened = opened & (v < high) & ((v < hole_low) | (v > hole_high))
    return opened


@triton.jit
def _fast(
    z,
    shift,
    low,
    high,
    hole_low,
    hole_high,
    first,
    rows,
    span,
    width,
    steps,
    SIMPLE: tl.constexpr,
    KIND: tl.constexpr,
    BLOCK_A: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Sums of each lane around its shift; correct if every value is finite and none is huge."""
    opened = tl.zeros((BLOCK_A, BLOCK_C), tl.int32)
    total = tl.zeros((BLOCK_A, BLOCK_C), KIND)
    squares = tl.zeros((BLOCK_A, BLOCK_C), KIND)
    peak = tl.full((BLOCK_A, BLOCK_C), float("-inf"), KIND)
    for step in range(steps):
        row = first + step * BLOCK_A + tl.arange(0, BLOCK_A)[:, None]
        for start in range(0, span, BLOCK_C):
            column = start + tl.arange(0, BLOCK_C)[None, :]
            there = (row < rows) & (column < span)
            v = tl.load(z + row.to(tl.int64) * width + column, mask=there, other=0.0).to(KIND)
            beside = tl.where(there, v - shift, 0.0)
            opened += (there & _is_open(v, low, high, hole_low, hole_high, SIMPLE)).to(tl.int32)
            total += beside
            squares += beside * beside
            peak = tl.maximum(peak, tl.where(there, v, float("-inf")))
    return opened, total, squares, peak


@triton.jit
def _median(a, b, c):
    return tl.maximum(tl.minimum(a, b), tl.minimum(tl.maximum(a, b), c))


@triton.jit
def _is_off(total, squares, n):
    """1 if sums are not finite, or were taken around a value far from the others."""
    fine = (squares < float("inf")) & (FAR * total * total <= (FAR - 1.0) * squares * n)  # False for NaN
    return tl.where(fine, 0, 1)


@triton.jit
def _centre(z, first, rows, span, width, steps, BLOCK_A: tl.constexpr, BLOCK_C: tl.constexpr):
    """Number and sum of each lane's finite values."""
    count = tl.zeros((BLOCK_A, BLOCK_C), tl.int32)
    total = tl.zeros((BLOCK_A, BLOCK_C), tl.float64)
    for step in range(steps):
        row = first + step * BLOCK_A + tl.arange(0, BLOCK_A)[:, None]
        for start in range(0, span, BLOCK_C):
            column = start + tl.arange(0, BLOCK_C)[None, :]
            there = (row < rows) & (column < span)
            v = tl.load(z + row.to(tl.int64) * width + column, mask=there, other=0.0).to(tl.float64)
            finite = there & (tl.abs(v) < float("inf"))
            count += finite.to(tl.int32)
            total += tl.where(finite, v, 0.0)
    return tl.sum(count, 0).to(tl.float64), tl.sum(total, 0)


@triton.jit
def _exact(
    z,
    shift,
    low,
    high,
    hole_low,
    hole_high,
    first,
    rows,
    span,
    width,
    steps,
    SIMPLE: tl.constexpr,
    BLOCK_A: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Like `_fast`, in float64: correct even for NaN, infinities and huge values."""
    opened = tl.zeros((BLOCK_A, BLOCK_C), tl.int32)
    total = tl.zeros((BLOCK_A, BLOCK_C), tl.float64)
    squares = tl.zeros((BLOCK_A, BLOCK_C), tl.float64)
    peak = tl.full((BLOCK_A, BLOCK_C), float("-inf"), tl.float64)
    for step in range(steps):
        row = first + step * BLOCK_A + tl.arange(0, BLOCK_A)[:, None]
        for start in range(0, span, BLOCK_C):
            column = start + tl.arange(0, BLOCK_C)[None, :]
            there = (row < rows) & (column < span)
            v = tl.load(z + row.to(tl.int64) * width + column, mask=there, other=0.0).to(tl.float64)
            finite = tl.abs(v) < float("inf")  # False for NaN
            held = tl.where(v == float("inf"), 1e38, tl.where(v == float("-inf"), -1e38, v))  # traced.HUGE
            beside = tl.where(there & finite, v - shift, 0.0)
            opened += (there & _is_open(held, low, high, hole_low, hole_high, SIMPLE)).to(tl.int32)
            total += beside
            squares += beside * beside
            peak = tl.maximum(peak, tl.where(there & finite, v, float("-inf")))
    return opened, total, squares, peak


@triton.jit(do_not_specialize=["rows", "chunks", "steps"])
def observe(
    z,
    lows,
    bounds,
    parts,
    rows,
    width,
    positions,
    groups,
    chunks,
    steps,
    EACH: tl.constexpr,
    SIMPLE: tl.constexpr,
    LONG: tl.constexpr,
    KIND: tl.constexpr,
    BLOCK_A: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Write the part of a block of pre-activations.

    `lows` has one low for all units, or one per unit if EACH; `bounds` the others: high, low and high of the
    hole.
    """
    group = tl.program_id(0) % groups
    chunk = tl.program_id(0) // groups
    first = chunk * steps * BLOCK_A
    blocks = tl.minimum(steps, tl.cdiv(rows - first, BLOCK_A))
    taken = tl.minimum(steps * BLOCK_A, rows - first)
    high, hole_low, hole_high = tl.load(bounds), tl.load(bounds + 1), tl.load(bounds + 2)
    origin = z + first.to(tl.int64) * width
    middle = z + (first + taken // 2).to(tl.int64) * width
    last = z + (first + taken - 1).to(tl.int64) * width
    lane = tl.arange(0, BLOCK_C)[None, :]
    if LONG:
        base = group * positions
        span = positions
        ends = tl.load(last + base + positions - 1).to(KIND)
        shift = _median(
            tl.load(origin + base).to(KIND), tl.load(middle + base + positions // 2).to(KIND), ends
        )
        low = tl.load(lows + (group if EACH else 0)).to(KIND)
        inputs = taken * positions
    else:
        base = group * BLOCK_C
        span = tl.minimum(BLOCK_C, width - base)
        there = lane < span
        ends = tl.load(last + base + lane, mask=there, other=0.0).to(KIND)
        centre = tl.load(middle + base + lane, mask=there, other=0.0).to(KIND)
        shift = _median(tl.load(origin + base + lane, mask=there, other=0.0).to(KIND), centre, ends)
        unit = (base + lane) // positions
        low = tl.load(lows + (unit if EACH else 0 * unit), mask=there, other=0.0).to(KIND)
        inputs = taken
    lane_opened, lane_total, lane_squares, lane_peak = _fast(
        z + base,
        shift,
        low,
        high,
        hole_low,
        hole_high,
        first,
        rows,
        span,
        width,
        blocks,
        SIMPLE,
        KIND,
        BLOCK_A,
        BLOCK_C,
    )
    opened = tl.sum(lane_opened, 0).to(tl.float64)
    total = tl.sum(lane_total.to(tl.float64), 0)
    squares = tl.sum(lane_squares.to(tl.float64), 0)
    peak = tl.max(lane_peak, 0).to(tl.float64)
    n = inputs.to(tl.float64)
    around = shift.to(tl.float64)
    if LONG:  # all lanes belong to one unit
        finite = n / BLOCK_C + tl.zeros((BLOCK_C,), tl.float64)
        off = _is_off(tl.sum(total, 0), tl.sum(squares, 0), n)
    else:
        finite = n + tl.zeros((BLOCK_C,), tl.float64)
        off = tl.max(_is_off(total, squares, n), 0)
    if off > 0:
        rows_a: tl.constexpr = BLOCK_A // SMALLER
        finite, sums = _centre(z + base, first, rows, span, width, blocks * SMALLER, rows_a, BLOCK_C)
        if LONG:
            around = tl.sum(sums, 0) / tl.maximum(tl.sum(finite, 0), 1.0)
        else:
            around = (sums / tl.maximum(finite, 1.0))[None, :]
        wide_opened, wide_total, wide_squares, wide_peak = _exact(
            z + base,
            around,
            low.to(tl.float64),
            high.to(tl.float64),
            hole_low.to(tl.float64),
            hole_high.to(tl.float64),
            first,
            rows,
            span,
            width,
            blocks * SMALLER,
            SIMPLE,
            rows_a,
            BLOCK_C,
        )
        opened = tl.sum(wide_opened, 0).to(tl.float64)
        total = tl.sum(wide_total, 0)
        squares = tl.sum(wide_squares, 0)
        peak = tl.max(wide_peak, 0)
    if LONG:
        row = chunks.to(tl.int64) * groups
        at = parts + chunk.to(tl.int64) * groups + group
        tl.store(at, tl.sum(opened, 0))
        tl.store(at + row, tl.sum(finite, 0))
        tl.store(at + 2 * row, tl.sum(total, 0))
        tl.store(at + 3 * row, tl.sum(squares, 0))
        tl.store(at + 4 * row, tl.max(peak, 0))
        tl.store(at + 5 * row, around)
    else:
        row = chunks.to(tl.int64) * width
        columns = tl.arange(0, BLOCK_C)
        at = parts + chunk.to(tl.int64) * width + base + columns
        tl.store(at, opened, mask=columns < span)
        tl.store(at + row, finite, mask=columns < span)
        tl.store(at + 2 * row, total, mask=columns < span)
        tl.store(at + 3 * row, squares, mask=columns < span)
        tl.store(at + 4 * row, peak, mask=columns < span)
        tl.store(at + 5 * row, tl.ravel(around), mask=columns < span)


@triton.jit(do_not_specialize=["rows", "steps"])
def square(
    g,
    parts,
    rows,
    width,
    positions,
    groups,
    steps,
    LONG: tl.constexpr,
    KIND: tl.constexpr,
    BLOCK_A: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Write the sums of squares of a block of gradients; 0 only if all are 0."""
    group = tl.program_id(0) % groups
    chunk = tl.program_id(0) // groups
    first = chunk * steps * BLOCK_A
    blocks = tl.minimum(steps, tl.cdiv(rows - first, BLOCK_A))
    if LONG:
        base = group * positions
        span = positions
    else:
        base = group * BLOCK_C
        span = tl.minimum(BLOCK_C, width - base)
    lanes = tl.zeros((BLOCK_A, BLOCK_C), KIND)
    faint = tl.zeros((BLOCK_A, BLOCK_C), tl.int32)  # too small to be squared in float32
    for step in range(blocks):
        row = first + step * BLOCK_A + tl.arange(0, BLOCK_A)[:, None]
        for start in range(0, span, BLOCK_C):
            column = start + tl.arange(0, BLOCK_C)[None, :]
            there = (row < rows) & (column < span)
            v = tl.load(g + base + row.to(tl.int64) * width + column, mask=there, other=0.0).to(KIND)
            lanes += v * v
            faint |= ((v != 0.0) & (tl.abs(v) < 1e-16)).to(tl.int32)
    squares = tl.sum(lanes.to(tl.float64), 0)
    if (tl.sum(squares, 0) < float("inf")) & (tl.max(tl.max(faint, 0), 0) == 0):
        squares += 0.0
    else:
        wide = tl.zeros((BLOCK_A // SMALLER, BLOCK_C), tl.float64)
        for step in range(blocks * SMALLER):
            row = first + step * (BLOCK_A // SMALLER) + tl.arange(0, BLOCK_A // SMALLER)[:, None]
            for start in range(0, span, BLOCK_C):
                column = start + tl.arange(0, BLOCK_C)[None, :]
                there = (row < rows) & (column < span)
                at = g + base + row.to(tl.int64) * width + column
                v = tl.load(at, mask=there, other=0.0).to(tl.float64)
                wide += v * v
        squares = tl.sum(wide, 0)
    if LONG:
        tl.store(parts + chunk.to(tl.int64) * groups + group, tl.sum(squares, 0))
    else:
        columns = tl.arange(0, BLOCK_C)
        tl.store(parts + chunk.to(tl.int64) * width + base + columns, squares, mask=columns < span)
