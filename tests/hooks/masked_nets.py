"""A network over padded sequences, and what it counts without padding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

BATCH, LONG, FEATURES = 6, 9, 5


LENGTHS = torch.tensor([9, 1, 4, 7, 2, 5])


MASK = torch.arange(LONG) < LENGTHS[:, None]


def padded(seed: int = 0) -> Tensor:
    """Sequences whose padding is far from all inputs."""
    sequences = torch.randn(BATCH, LONG, FEATURES, generator=torch.Generator().manual_seed(seed))
    return sequences.masked_fill(~MASK[..., None], 50.0)


class Tokens(nn.Module):
    """One layer on tokens; unit 0 opens on padding alone."""

    def __init__(self, look: Callable[[nn.Linear, Tensor], Any] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.look = nn.Linear(FEATURES, 8), look
        self.act = nn.ReLU() if look is None else nn.Identity()
        with torch.no_grad():
            self.layer.weight[0], self.layer.bias[0] = 1.0, -30.0

    def forward(self, sequences: Tensor) -> Tensor:
        if self.look is not None:
            return self.look(self.layer, sequences)
        return self.act(self.layer(sequences))


def heads(layer: nn.Linear, sequences: Tensor) -> Tensor:
    """Units on two axes: (batch, positions, heads, dimensions)."""
    return F.relu(layer(sequences).view(BATCH, LONG, 2, 4)).flatten(2)


def apart(layer: nn.Linear, sequences: Tensor) -> Tensor:
    """(batch, heads, positions, dimensions)."""
    return F.relu(layer(sequences).view(BATCH, LONG, 2, 4).transpose(1, 2)).transpose(1, 2).flatten(2)


LOOKS: dict[str, Callable[[nn.Linear, Tensor], Any] | None] = {
    "module": None,
    "function": lambda layer, s: F.relu(layer(s)),
    "flattened": lambda layer, s: F.relu(layer(s.flatten(0, 1))).view(BATCH, LONG, -1),
    "positions first": lambda layer, s: F.relu(layer(s.transpose(0, 1))).transpose(0, 1),
    "channels first": lambda layer, s: F.relu(layer(s).transpose(1, 2)).transpose(1, 2),
    "convolution": lambda layer, s: F.relu(
        F.conv1d(s.transpose(1, 2), layer.weight[..., None], layer.bias)
    ).transpose(1, 2),
    "heads": heads,
    "heads apart": apart,
    "checkpoint": lambda layer, s: checkpoint(lambda t: F.relu(layer(t)), s, use_reentrant=False),
}


def truth(model: Tokens, batches: list[Tensor], mask: Tensor) -> tuple[int, list[int], list[float]]:
    """n, active and grad_rms over the inputs that count, for the loss below."""
    z = torch.cat([model.layer(batch)[mask] for batch in batches]).detach().requires_grad_()
    loss(F.relu(z)).backward()
    assert z.grad is not None
    return len(z), (z > 0).sum(0).tolist(), z.grad.square().mean(0).sqrt().tolist()


def loss(outputs: Tensor) -> Tensor:
    return outputs.square().sum()
