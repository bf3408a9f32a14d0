"""A pass that leaves nothing behind: statistics of norms and random states come back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def aside(model: nn.Module) -> Iterator[None]:
    """Passes in the block, without gradients and in the model's modes, change no buffer and no random state.

    Example:
        >>> norm = nn.BatchNorm1d(2)
        >>> with aside(norm):
        ...     _ = norm(torch.ones(4, 2))
        >>> norm.running_mean.tolist()
        [0.0, 0.0]
    """
    kept = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = {p.device for p in model.parameters()}
    cuda = [device.index for device in devices if device.type == "cuda" and device.index is not None]
    with torch.no_grad(), torch.random.fork_rng(devices=cuda):
        try:
            yield
        finally:
            for buffer, value in kept:
                buffer.copy_(value)
