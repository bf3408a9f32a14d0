"""Whether compiled loops (numba) or torch operations process the tensors of a stack."""

from __future__ import annotations

import torch


def compiled(device: torch.device) -> bool:
    """Whether compiled loops serve a device: they are faster on a CPU, and torch serves all others."""
    return device.type == "cpu"
