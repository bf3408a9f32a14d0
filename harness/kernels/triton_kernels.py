"""The GPU's kernels (Triton): one pass over a batch, then a launch over the units that adds up what it wrote.

Imported only by `fused.py` and only when a GPU asks for it: a machine without one has no Triton.

A batch is (A, F, P) in memory without gaps, W = F · P values to a row. A program takes a block of rows and of
neighbouring columns, and sums lane by lane around a first value, in float32 for what is no wider; lanes are
added in float64. A block with a sum that is not finite is counted again, value by value. Each program writes
its own part: nothing depends on the order in which programs run, so results are the same bits every time.

Short P (LONG false): a lane is a column, the P columns of a unit are added up in the second launch. Long P:
all lanes of a program belong to one unit.
"""

# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false

from __future__ import annotations

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

# A part is (5, chunks, columns or units) float64: open, not finite, sum, squares, maximum.
SMALLER = tl.constexpr(8)  # times fewer rows at once in float64, so that the usual way has the registers


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
    """Sums of each lane around its shift: right if every value is finite and none is huge."""
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
def _exact(
    z,
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
    """As `_fast`, in float64, whatever NaN, infinities or huge values come."""
    opened = tl.zeros((BLOCK_A, BLOCK_C), tl.int32)
    odd = tl.zeros((BLOCK_A, BLOCK_C), tl.int32)
    total = tl.zeros((BLOCK_A, BLOCK_C), tl.float64)
    squares = tl.zeros((BLOCK_A, BLOCK_C), tl.float64)
    peak = tl.full((BLOCK_A, BLOCK_C), float("-inf"), tl.float64)
    for step in range(steps):
        row = first + step * BLOCK_A + tl.arange(0, BLOCK_A)[:, None]
        for start in range(0, span, BLOCK_C):
            column = start + tl.arange(0, BLOCK_C)[None, :]
            there = (row < rows) & (column < span)
            v = tl.load(z + row.to(tl.int64) * width + column, mask=there, other=0.0).to(tl.float64)
            finite = tl.abs(v) < float("inf")  # not so for NaN
            held = tl.where(v == float("inf"), 1e38, tl.where(v == float("-inf"), -1e38, v))  # loops.HUGE
            kept = tl.where(there & finite, v, 0.0)
            opened += (there & _is_open(held, low, high, hole_low, hole_high, SIMPLE)).to(tl.int32)
            odd += (there & (finite == 0)).to(tl.int32)
            total += kept
            squares += kept * kept
            peak = tl.maximum(peak, tl.where(there & finite, v, float("-inf")))
    return opened, odd, total, squares, peak


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
    """A block of a batch of pre-activations: its part.

    `lows` has one low for all units, or one for EACH; `bounds` the others: high, low and high of the hole.
    """
    group = tl.program_id(0) % groups
    chunk = tl.program_id(0) // groups
    first = chunk * steps * BLOCK_A
    blocks = tl.minimum(steps, tl.cdiv(rows - first, BLOCK_A))
    taken = tl.minimum(steps * BLOCK_A, rows - first)
    high, hole_low, hole_high = tl.load(bounds), tl.load(bounds + 1), tl.load(bounds + 2)
    origin = z + first.to(tl.int64) * width
    lane = tl.arange(0, BLOCK_C)[None, :]
    if LONG:
        base = group * positions
        span = positions
        shift = tl.load(origin + base).to(KIND)
        low = tl.load(lows + (group if EACH else 0)).to(KIND)
        inputs = taken * positions
    else:
        base = group * BLOCK_C
        span = tl.minimum(BLOCK_C, width - base)
        there = lane < span
        shift = tl.load(origin + base + lane, mask=there, other=0.0).to(KIND)
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
    odd = 0 * opened
    total = tl.sum(lane_total.to(tl.float64), 0)
    squares = tl.sum(lane_squares.to(tl.float64), 0)
    peak = tl.max(lane_peak, 0).to(tl.float64)
    k = tl.ravel(shift.to(tl.float64) + 0.0 * lane)
    if tl.sum(squares, 0) < float("inf"):  # not so for NaN
        n = inputs.to(tl.float64)
        if LONG:
            n = n / BLOCK_C  # each lane's share: they are added up below
        squares += 2 * k * total + n * k * k
        total += n * k
    else:
        wide = low.to(tl.float64)
        wide_opened, wide_odd, wide_total, wide_squares, wide_peak = _exact(
            z + base,
            wide,
            high.to(tl.float64),
            hole_low.to(tl.float64),
            hole_high.to(tl.float64),
            first,
            rows,
            span,
            width,
            blocks * SMALLER,
            SIMPLE,
            BLOCK_A // SMALLER,
            BLOCK_C,
        )
        opened = tl.sum(wide_opened, 0).to(tl.float64)
        odd = tl.sum(wide_odd, 0).to(tl.float64)
        total = tl.sum(wide_total, 0)
        squares = tl.sum(wide_squares, 0)
        peak = tl.max(wide_peak, 0)
    if LONG:
        row = chunks.to(tl.int64) * groups
        at = parts + chunk.to(tl.int64) * groups + group
        tl.store(at, tl.sum(opened, 0))
        tl.store(at + row, tl.sum(odd, 0))
        tl.store(at + 2 * row, tl.sum(total, 0))
        tl.store(at + 3 * row, tl.sum(squares, 0))
        tl.store(at + 4 * row, tl.max(peak, 0))
    else:
        row = chunks.to(tl.int64) * width
        columns = tl.arange(0, BLOCK_C)
        at = parts + chunk.to(tl.int64) * width + base + columns
        tl.store(at, opened, mask=columns < span)
        tl.store(at + row, odd, mask=columns < span)
        tl.store(at + 2 * row, total, mask=columns < span)
        tl.store(at + 3 * row, squares, mask=columns < span)
        tl.store(at + 4 * row, peak, mask=columns < span)


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
    """A block of a batch of gradients: its sums of squares; 0 only where all are 0."""
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


@triton.jit(do_not_specialize=["chunks", "n", "again"])
def commit(
    parts, counts, sums, units, folded, chunks, n, again, BLOCK_K: tl.constexpr, BLOCK_F: tl.constexpr
):
    """The parts of a batch into a site's counts (3, F) int64 and sums (4, F) float64.

    A unit has `folded` columns in a part; `again` and SILENT as in `loops.accumulate`.
    """
    unit = tl.program_id(0) * BLOCK_F + tl.arange(0, BLOCK_F)
    there = unit < units
    opened = tl.zeros((BLOCK_F,), tl.float64)
    odd = tl.zeros((BLOCK_F,), tl.float64)
    total = tl.zeros((BLOCK_F,), tl.float64)
    squares = tl.zeros((BLOCK_F,), tl.float64)
    peak = tl.full((BLOCK_F,), float("-inf"), tl.float64)
    row = chunks.to(tl.int64) * units * folded
    for start in range(0, chunks * folded, BLOCK_K):
        k = (start + tl.arange(0, BLOCK_K))[:, None]
        at = parts + (k // folded).to(tl.int64) * units * folded + unit[None, :] * folded + k % folded
        read = (k < chunks * folded) & there[None, :]
        opened += tl.sum(tl.load(at, mask=read, other=0.0), 0)
        odd += tl.sum(tl.load(at + row, mask=read, other=0.0), 0)
        total += tl.sum(tl.load(at + 2 * row, mask=read, other=0.0), 0)
        squares += tl.sum(tl.load(at + 3 * row, mask=read, other=0.0), 0)
        peak = tl.maximum(peak, tl.max(tl.load(at + 4 * row, mask=read, other=float("-inf")), 0))
    active = tl.load(counts + unit, mask=there)
    strange = tl.load(counts + units + unit, mask=there)
    silent = tl.load(counts + 2 * units + unit, mask=there)
    loud = (opened > 0) | ((again != 0) & (silent == 0))
    tl.store(counts + unit, active + opened.to(tl.int64), mask=there)
    tl.store(counts + units + unit, strange + odd.to(tl.int64), mask=there)
    tl.store(counts + 2 * units + unit, tl.where(loud, 0, silent + n), mask=there)
    before = tl.load(sums + unit, mask=there)
    tl.store(sums + unit, before + total, mask=there)
    before = tl.load(sums + units + unit, mask=there)
    tl.store(sums + units + unit, before + squares, mask=there)
    before = tl.load(sums + 2 * units + unit, mask=there)
    tl.store(sums + 2 * units + unit, tl.maximum(before, peak), mask=there)


@triton.jit(do_not_specialize=["chunks"])
def commit_squares(parts, sums, units, folded, chunks, BLOCK_K: tl.constexpr, BLOCK_F: tl.constexpr):
    """The parts of a batch of gradients into `sums` (F,) float64."""
    unit = tl.program_id(0) * BLOCK_F + tl.arange(0, BLOCK_F)
    there = unit < units
    squares = tl.zeros((BLOCK_F,), tl.float64)
    for start in range(0, chunks * folded, BLOCK_K):
        k = (start + tl.arange(0, BLOCK_K))[:, None]
        at = parts + (k // folded).to(tl.int64) * units * folded + unit[None, :] * folded + k % folded
        squares += tl.sum(tl.load(at, mask=(k < chunks * folded) & there[None, :], other=0.0), 0)
    tl.store(sums + unit, tl.load(sums + unit, mask=there) + squares, mask=there)
