"""Kernels that fuse an activation with the preceding layer, or compute it on quantised values."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from harness.activations.registry import RECORDS

FUSED = "its layer and it are one kernel: its pre-activations are never in memory"
FUSED_QUANTISED = "it is fused and quantised: its pre-activations are never in memory"
QUANTISED = "its values are quantised"

_SPELLINGS = {spelling: r.name for r in RECORDS.values() for spelling in r.spellings or (r.name,)}
_SPELLINGS = {spelling: name for spelling, name in _SPELLINGS.items() if name not in ("clamp", "maximum")}


def fused_activation(function: Any, args: Sequence[Any]) -> tuple[str, str] | None:
    """The activation in a fused kernel and why it cannot be observed; None for other functions.

    Args:
        function: the function as a torch function mode sees it.
        args: arguments of the call; oneDNN kernels take the activation's name.

    Example:
        >>> import torch
        >>> fused_activation(torch.ops.quantized.conv2d_relu, ())
        ('relu', 'it is fused and quantised: its pre-activations are never in memory')
        >>> fused_activation(torch.conv2d, ())
    """
    name = getattr(function, "__name__", "").split(".")[0]
    if name.endswith("_pointwise"):  # torch.ops.mkldnn, torch.ops.onednn
        found = next((_SPELLINGS[a] for a in args if isinstance(a, str) and a in _SPELLINGS), None)
        return None if found is None else (found, FUSED)
    if "relu" not in name and name not in _SPELLINGS and not name.startswith("linear_"):
        return None
    return _by_name(name, is_quantised=str(function).startswith("quantized."))


@lru_cache(maxsize=256)
def _by_name(name: str, *, is_quantised: bool) -> tuple[str, str] | None:
    if not is_quantised:
        is_fused = name.startswith(("cudnn_convolution_", "miopen_convolution_")) and name.endswith("_relu")
        return ("relu", FUSED) if is_fused else None
    name = name.removesuffix("_dynamic")
    if name in _SPELLINGS:
        return _SPELLINGS[name], QUANTISED
    ending = max((s for s in _SPELLINGS if name.endswith(f"_{s}")), key=len, default=None)
    return None if ending is None else (_SPELLINGS[ending], FUSED_QUANTISED)
