"""CReLU: the only activation here that PyTorch does not have."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CReLU(nn.Module):
    """Concatenated ReLU: relu(z) followed by relu(-z), twice as many outputs as units.

    A unit's gate is open unless z is 0, since one of the two halves passes the gradient.
    Source: Shang et al. 2016, arXiv 1603.05201.

    Args:
        dim: the axis that holds the units; None takes axis 1 of a four-dimensional (N, C, H, W) tensor
            and the last axis of any other.

    Example:
        >>> CReLU()(torch.tensor([[1.0, -2.0]]))
        tensor([[1., 0., 0., 2.]])
    """

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, z: Tensor) -> Tensor:
        """(..., units, ...) -> (..., 2 · units, ...)."""
        dim = self.dim if self.dim is not None else (1 if z.dim() == 4 else -1)
        return torch.relu(torch.cat((z, -z), dim))

    def extra_repr(self) -> str:
        """The arguments, for print(model)."""
        return "" if self.dim is None else f"dim={self.dim}"
