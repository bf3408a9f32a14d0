"""Counting on a GPU: a batch is read once, in one launch, and the host never waits for a value.

Triton comes with the CUDA builds of torch. Without it, and on devices it does not support, plain torch
operations (`traced.py`) count instead; they do not wait either, but read the batch several times.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from harness.activations.gates import Gate
from harness.kernels.accumulators import GRADIENT, Accumulators
from harness.kernels.layout import Axes, as_units

KINDS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
LONG = 32  # from this many positions on, a program handles a single unit
LANES = 2048  # lanes per program
STEPS = 64  # largest number of values that a lane adds up in its own precision
PROGRAMS = 1024  # enough to keep a GPU busy; a fixed number, so that sums do not depend on the GPU
OPTIONS: dict[str, Any] = {
    "enable_fp_fusion": True
}  # set explicitly, since Triton 3.9 warns of a change of its default


class NotBuilt(RuntimeError):
    """A kernel could not be built or launched on this machine; nothing was counted."""


class Plan(NamedTuple):
    """How a batch (A, F, P) is divided among programs; depends on the shape alone.

    Attributes:
        long: whether all lanes of a program belong to one unit.
        rows: A.
        width: F · P, values per row.
        positions: P.
        groups: number of blocks of columns, or of units.
        chunks: number of blocks of rows.
        steps: blocks of `block_a` rows per chunk.
        block_a: rows that a program reads at once.
        block_c: columns that a program reads at once.
    """

    long: bool
    rows: int
    width: int
    positions: int
    groups: int
    chunks: int
    steps: int
    block_a: int
    block_c: int

    @property
    def folded(self) -> int:
        """Columns of a part that belong to one unit."""
        return 1 if self.long else self.positions


def plan(rows: int, units: int, positions: int) -> Plan:
    """Divide a batch among programs.

    Args:
        rows: A, at least 1.
        units: F, at least 1.
        positions: P, at least 1.

    Example:
        >>> shared = plan(8192, 512, 1)
        >>> shared.groups, shared.chunks, shared.block_a, shared.block_c
        (8, 128, 32, 64)
    """
    long, width = positions >= LONG, units * positions
    block_c = min(256, _power(positions)) if long else min(64, max(16, _power(width)))
    block_a = LANES // block_c
    groups = units if long else -(-width // block_c)
    blocks = -(-rows // block_a)
    most = max(1, STEPS // -(-positions // block_c)) if long else STEPS
    steps = min(most, max(1, blocks * groups // PROGRAMS))
    return Plan(long, rows, width, positions, groups, -(-blocks // steps), steps, block_a, block_c)


def serves(z: Tensor) -> bool:
    """Whether the kernels accept this tensor: a plain float tensor on a GPU, and Triton works."""
    return z.is_cuda and z.dtype in KINDS and type(z) is Tensor and z.numel() > 0 and _kernels() is not None


def accumulate(sums: Accumulators, z: Tensor, axes: Axes, gate: Gate, *, same_forward: bool = False) -> int:
    """Count a batch of pre-activations, like `dispatch.accumulate`, for tensors that `serves` accepts."""
    kernels, units = _kernels(), sums.counts.shape[1]
    z, rows, positions = _laid_out(z, axes)
    shared = plan(rows, units, positions)
    outs = units * shared.folded
    parts = torch.empty(6, shared.chunks, outs, dtype=torch.float64, device=z.device)
    low, kind = gate.low, torch.float64 if z.dtype == torch.float64 else torch.float32
    each = isinstance(low, Tensor)
    bounds = _bounds(gate._replace(low=0.0) if each else gate, kind, z.device)
    lows = low.detach().to(z.device, kind).reshape(-1) if isinstance(low, Tensor) else bounds
    simple = gate.high == torch.inf and not gate.has_hole
    n = rows * positions
    with _launching(z.device):
        kernels.observe[(shared.groups * shared.chunks,)](
            *(z, lows, bounds[1:], parts, rows, shared.width, positions, shared.groups, shared.chunks),
            shared.steps,
            EACH=each and lows.numel() > 1,
            SIMPLE=simple,
            LONG=shared.long,
            KIND=_kind(kernels, kind),
            BLOCK_A=shared.block_a,
            BLOCK_C=shared.block_c,
            **OPTIONS,
        )
        block = _units_together(shared)
        kernels.commit[(-(-units // block),)](
            *(parts, sums.counts, sums.sums, units, shared.folded, shared.chunks, n, int(same_forward)),
            BLOCK_K=1024 // block,
            BLOCK_F=block,
            **OPTIONS,
        )
    return n


def accumulate_gradient(sums: Accumulators, gradient: Tensor, axes: Axes) -> int:
    """Add the squares of ∂L/∂z, like `dispatch.accumulate_gradient`, for tensors that `serves` accepts."""
    kernels, units = _kernels(), sums.counts.shape[1]
    g, rows, positions = _laid_out(gradient, axes)
    shared = plan(rows, units, positions)
    parts = torch.empty(shared.chunks, units * shared.folded, dtype=torch.float64, device=g.device)
    kind = torch.float64 if g.dtype == torch.float64 else torch.float32
    with _launching(g.device):
        kernels.square[(shared.groups * shared.chunks,)](
            *(g, parts, rows, shared.width, positions, shared.groups, shared.steps),
            LONG=shared.long,
            KIND=_kind(kernels, kind),
            BLOCK_A=shared.block_a,
            BLOCK_C=shared.block_c,
            **OPTIONS,
        )
        block = _units_together(shared)
        kernels.commit_squares[(-(-units // block),)](
            *(parts, sums.sums[GRADIENT], units, shared.folded, shared.chunks),
            BLOCK_K=1024 // block,
            BLOCK_F=block,
            **OPTIONS,
        )
    return rows * positions


def give_up(error: NotBuilt) -> None:
    """Count with plain torch from now on, since a kernel could not be built (no compiler, say)."""
    _state["broken"] = True
    warnings.warn(f"the GPU's kernels do not work here, counting is slower: {error}", stacklevel=2)


_state: dict[str, Any] = {"broken": False, "kernels": None}


def _kernels() -> Any:
    """The module of kernels; None without Triton."""
    if _state["broken"]:
        return None
    if _state["kernels"] is None:
        try:
            from harness.kernels import triton_kernels as triton_kernels
        except ImportError:  # a build of torch without it
            _state["broken"] = True
            return None
        _state["kernels"] = triton_kernels
    return _state["kernels"]


@lru_cache(maxsize=256)
def _bounds(gate: Gate, kind: torch.dtype, device: torch.device) -> Tensor:
    """A gate's four numbers, filled in on the device: a copy from the host would synchronize."""
    bounds = torch.empty(4, dtype=kind, device=device)
    for k, value in enumerate(gate):
        bounds[k].fill_(value)
    return bounds


def _laid_out(z: Tensor, axes: Axes) -> tuple[Tensor, int, int]:
    """The tensor as contiguous (A, F) or (A, F, P), copied if necessary; A; and P."""
    units = as_units(z, axes, ordered=False).contiguous()
    return units, units.shape[0], units.shape[2] if units.ndim == 3 else 1


@contextmanager
def _launching(device: torch.device) -> Iterator[None]:
    """Context manager that launches kernels on a device and raises NotBuilt for any error."""
    elsewhere = device.type == "cuda" and device.index != torch.cuda.current_device()
    try:
        with torch.cuda.device(device) if elsewhere else nullcontext():
            yield
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise NotBuilt(reason.splitlines()[0]) from error


def _units_together(shared: Plan) -> int:
    """Units that a program of the second launch sums; fewer if there are many parts."""
    return 16 if shared.chunks * shared.folded > 16 else 64


def _kind(kernels: Any, dtype: torch.dtype) -> Any:
    return kernels.tl.float64 if dtype == torch.float64 else kernels.tl.float32


def _power(n: int) -> int:
    """The smallest power of two that is at least n."""
    return 1 << (n - 1).bit_length()
