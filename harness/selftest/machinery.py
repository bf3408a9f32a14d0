"""What stands between a user's code and the kernels: fast paths, checkpoints, autocast, compile."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from harness.selftest.case import Case, dead, kill, normal
from harness.selftest.truth import Keep, TrueSite, through


class Encoder(nn.Module):
    """Two stock transformer layers."""

    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 12, dropout, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 2)
        for block in self.encoder.layers:
            kill(block.linear1, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x))


def encoder_reference(model: Any, x: Tensor, keep: Keep) -> Tensor:
    for i, layer in enumerate(model.encoder.layers):
        attended = layer.self_attn(x, x, x, need_weights=False)[0]
        x = layer.norm1(x + layer.dropout1(attended))
        z = keep(f"encoder.layers.{i}:relu", layer.linear1(x))
        x = layer.norm2(x + layer.dropout2(layer.linear2(layer.dropout(F.relu(z)))))
    return model.head(x)


class Checkpointed(nn.Module):
    """The middle is computed twice; its inputs count once."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.stem, self.relu, self.head = nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2)
        self.middle = nn.Sequential(nn.Linear(6, 7), nn.ReLU(inplace=True), nn.Linear(7, 6))
        self.reentrant = reentrant
        kill(self.stem, 0)
        kill(self.middle[0], 1)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        x = self.relu(keep("relu", self.stem(x)))
        if keep is through:
            x = checkpoint(self.middle, x, use_reentrant=self.reentrant)  # pyright: ignore[reportAssignmentType]
        else:
            x = self.middle[2](self.middle[1](keep("middle.1", self.middle[0](x))))
        return self.head(x)


CHECKPOINT_SITES = (
    TrueSite("relu", producer="stem", size=6, dead=dead(0)),
    TrueSite("middle.1", producer="middle.0", size=7, dead=dead(1)),
)


CASES: dict[str, Case] = {
    "encoder": Case(
        Encoder,
        normal(3, 4, 8, batches=3),
        tuple(
            TrueSite(
                f"encoder.layers.{i}:relu", producer=f"encoder.layers.{i}.linear1", size=12, dead=dead(5)
            )
            for i in range(2)
        ),
        encoder_reference,
    ),
    "checkpoint": Case(lambda: Checkpointed(False), normal(8, 6), CHECKPOINT_SITES),
    "checkpoint reentrant": Case(lambda: Checkpointed(True), normal(8, 6), CHECKPOINT_SITES),
}
