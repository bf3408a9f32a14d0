"""Vector code under the compiled loops: LANES neighbouring values side by side in registers.

numba's own loops leave maxima and counts half vectorised, so the LLVM instructions are written out here, once
for all shapes: a strip is `steps` vectors of LANES values, `stride` elements apart, reduced lane by lane into
rows of a scratch table. Nothing in it is of one processor: LLVM splits the vectors as the machine has them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
TILE = 512  # lanes of a scratch row: neighbouring strips that are worked on together
SHIFT, LOW, HIGH, HOLE_LOW, HOLE_HIGH, TOTAL, SQUARES, PEAK = range(8)  # rows of the scratch table

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_FUSED = ("contract",)  # a multiplication and an addition may be one instruction


def _pointer(typing_context: Any, address: Any, like: Any) -> Any:
    kind = types.CPointer(like.dtype)

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(kind))

    return kind(types.int64, like), code


#: (address, like): the address as a pointer to values of the kind in the array `like`.
pointer: Any = intrinsic(_pointer)


def _at(builder: Any, base: Any, index: int | Any, vector: Any) -> Any:
    index = ir.Constant(_I64, index) if isinstance(index, int) else index
    return builder.bitcast(builder.gep(base, [index]), ir.PointerType(vector))


def _load(builder: Any, place: Any, align: int) -> Any:
    value = builder.load(place)
    value.align = align
    return value


def _masked_load(builder: Any, place: Any, mask: Any, instead: Any, align: int) -> Any:
    vector = instead.type
    suffix = "f32" if vector.element == ir.FloatType() else "f64"
    kind = ir.FunctionType(vector, [ir.PointerType(vector), _I32, mask.type, vector])
    load = cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.load.v{LANES}{suffix}.p0")
    return builder.call(load, [place, ir.Constant(_I32, align), mask, instead])


def _first_lanes(builder: Any, on: Any) -> Any:
    """Mask of the first `on` lanes."""
    wide = ir.VectorType(_I64, LANES)
    nothing = ir.Constant(wide, ir.Undefined)
    one = builder.insert_element(nothing, on, ir.Constant(_I32, 0))
    every = builder.shuffle_vector(one, nothing, ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES))
    return builder.icmp_signed("<", ir.Constant(wide, list(range(LANES))), every)


def _observing(*, part: bool, bounds: int) -> Callable[..., None]:
    """Code for whole strips or for the first `on` lanes; gates of one bound (low) or of four."""

    @intrinsic
    def observe(typing_context, z, steps, stride, on, scratch, counts):  # type: ignore[no-untyped-def]
        integer = types.int64
        signature = types.void(z, integer, integer, integer, scratch, counts)

        def code(context: Any, b: Any, signature: Any, args: Any) -> Any:
            z_, steps, stride, on, scratch_, counts_ = args
            align = 4 if z.dtype is types.float32 else 8
            values = ir.VectorType(context.get_value_type(z.dtype), LANES)
            wholes = ir.VectorType(_I32, LANES)
            rows = {k: _at(b, scratch_, k * TILE, values) for k in range(8)}
            opened = _at(b, counts_, 0, wholes)
            # 1 comes from memory: known to the compiler, it would trade the masked addition for two others
            one = _load(b, _at(b, counts_, TILE, wholes), 4)
            shift = _load(b, rows[SHIFT], align)
            bound = [_load(b, rows[LOW + k], align) for k in range(bounds)]
            total, squares, peak = (
                cgutils.alloca_once_value(b, _load(b, rows[k], align)) for k in (TOTAL, SQUARES, PEAK)
            )
            count = cgutils.alloca_once_value(b, _load(b, opened, 4))
            mask = _first_lanes(b, on) if part else None
            with cgutils.for_range(b, steps) as loop:
                place = _at(b, z_, b.mul(loop.index, stride), values)
                # lanes that are off read the shift: their difference is 0 and no new maximum
                v = _masked_load(b, place, mask, shift, align) if part else _load(b, place, align)
                is_open = b.fcmp_ordered(">", v, bound[0])
                if bounds == 4:
                    beside = b.or_(b.fcmp_ordered("<", v, bound[2]), b.fcmp_ordered(">", v, bound[3]))
                    is_open = b.and_(b.and_(is_open, b.fcmp_ordered("<", v, bound[1])), beside)
                if part:
                    is_open = b.and_(is_open, mask)
                so_far = b.load(count)
                b.store(b.select(is_open, b.add(so_far, one), so_far), count)
                highest = b.load(peak)
                b.store(b.select(b.fcmp_ordered(">", v, highest), v, highest), peak)
                d = b.fsub(v, shift)
                b.store(b.fadd(b.load(total), d), total)
                b.store(b.fadd(b.load(squares), b.fmul(d, d, flags=_FUSED), flags=_FUSED), squares)
            for k, register in ((TOTAL, total), (SQUARES, squares), (PEAK, peak)):
                b.store(b.load(register), rows[k], align=align)
            b.store(b.load(count), opened, align=4)
            return context.get_dummy_value()

        return signature, code

    return observe


#: (z, steps, stride, on, scratch, counts): z a pointer to the strip; scratch and counts to its first lane in
#: an (8, TILE) table of values and a (2, TILE) table of int32: the counts, and ones.
observe_low = _observing(part=False, bounds=1)
observe_low_part = _observing(part=True, bounds=1)
observe_gate = _observing(part=False, bounds=4)
observe_gate_part = _observing(part=True, bounds=4)


def _squaring(*, part: bool) -> Callable[..., None]:
    @intrinsic
    def squares(typing_context, z, steps, stride, on, sums):  # type: ignore[no-untyped-def]
        integer = types.int64
        signature = types.void(z, integer, integer, integer, sums)

        def code(context: Any, b: Any, signature: Any, args: Any) -> Any:
            z_, steps, stride, on, sums_ = args
            align = 4 if z.dtype is types.float32 else 8
            values = ir.VectorType(context.get_value_type(z.dtype), LANES)
            wide = ir.VectorType(ir.DoubleType(), LANES)
            result = _at(b, sums_, 0, wide)
            total = cgutils.alloca_once_value(b, _load(b, result, 8))
            mask = _first_lanes(b, on) if part else None
            zero = ir.Constant(values, [0.0] * LANES)
            with cgutils.for_range(b, steps) as loop:
                place = _at(b, z_, b.mul(loop.index, stride), values)
                v = _masked_load(b, place, mask, zero, align) if part else _load(b, place, align)
                d = b.fpext(v, wide) if z.dtype is types.float32 else v
                b.store(b.fadd(b.load(total), b.fmul(d, d, flags=_FUSED), flags=_FUSED), total)
            b.store(b.load(total), result, align=8)
            return context.get_dummy_value()

        return signature, code

    return squares


#: (z, steps, stride, on, sums): squares in float64 into LANES sums.
squares_whole = _squaring(part=False)
squares_part = _squaring(part=True)
