"""CUDA graphs: a captured step is replayed without Python, so its counts live on the device."""

from __future__ import annotations

import torch

from harness.kernels.statistics import UnitStatistics

FIRST = (
    "its call in a captured CUDA graph is none that was seen before, with autograd's graph: run a few"
    " training steps before the capture"
)
NO_FORWARD = "a CUDA graph was captured before any forward had run: run a few steps before"
MASKED = "a CUDA graph was captured of a forward that brings a mask along"
FIXED_GATES = "a captured CUDA graph counts units with a fixed gate alone, and the built-in statistics"
FOLLOWED = "the steps of a captured CUDA graph run no Python, so that nothing can follow them"
STEP = "step() was called while a CUDA graph was captured: call it after each replay"
REPLAYS = "the steps of a captured CUDA graph are not seen: call recorder.step() after each replay"

_WRITTEN: list[UnitStatistics] = []


def is_capturing() -> bool:
    """Whether the current CUDA stream is being captured."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


def keep_alive(statistics: UnitStatistics) -> None:
    """Keep statistics alive until the process ends: replays write to them even if the recorder is gone."""
    if not any(one is statistics for one in _WRITTEN):
        _WRITTEN.append(statistics)
