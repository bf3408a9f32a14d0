"""Transformers: torch's own layers, whose evaluation has a fused path, and custom attention blocks."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from harness.selftest.case import Case, kill, normal
from harness.selftest.truth import Keep, TrueSite, site, through


class Encoder(nn.Module):
    """Two stock transformer layers."""

    def __init__(self, dropout: float = 0.1, **options: Any) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 12, dropout, batch_first=True, **options)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 2)
        for block in self.encoder.layers:
            kill(block.linear1, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x))


def encoder_reference(model: Any, x: Tensor, keep: Keep, name: str = "relu") -> Tensor:
    activation = getattr(F, name)
    for i, layer in enumerate(model.encoder.layers):
        normed = layer.norm1(x) if layer.norm_first else x
        x = x + layer.dropout1(layer.self_attn(normed, normed, normed, need_weights=False)[0])
        x = x if layer.norm_first else layer.norm1(x)
        normed = layer.norm2(x) if layer.norm_first else x
        z = keep(f"encoder.layers.{i}:{name}", layer.linear1(normed))
        x = x + layer.dropout2(layer.linear2(layer.dropout(activation(z))))
        x = x if layer.norm_first else layer.norm2(x)
    return model.head(x)


def encoder_sites(name: str = "relu") -> tuple[TrueSite, ...]:
    return tuple(
        site(
            f"encoder.layers.{i}:{name}",
            f"encoder.layers.{i}.linear1",
            12,
            *((5,) if name == "relu" else ()),
            function=None if name == "relu" else getattr(F, name),
        )
        for i in range(2)
    )


class Attention(nn.Module):
    """nn.MultiheadAttention inside a block, followed by the block's own ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.norm = nn.MultiheadAttention(8, 2, batch_first=True), nn.LayerNorm(8)
        self.fc, self.relu, self.head = nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 2)
        kill(self.fc, 4)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        x = self.norm(x + self.attention(x, x, x)[0])
        return self.head(self.relu(keep("relu", self.fc(x))))


class Projected(nn.Module):
    """An activation directly on the output of attention: its units are those of the output projection."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.relu = nn.MultiheadAttention(8, 2, batch_first=True), nn.ReLU()
        self.head = nn.Linear(8, 2)
        kill(self.attention.out_proj, 3)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        return self.head(self.relu(keep("relu", self.attention(x, x, x, need_weights=False)[0])))


TOKENS = normal(3, 4, 8)
CASES: dict[str, Case] = {
    "encoder": Case(Encoder, encoder_sites(), TOKENS, encoder_reference),
    "encoder norm first": Case(lambda: Encoder(norm_first=True), encoder_sites(), TOKENS, encoder_reference),
    "encoder gelu": Case(
        lambda: Encoder(0.0, activation="gelu"),
        encoder_sites("gelu"),
        TOKENS,
        lambda model, x, keep: encoder_reference(model, x, keep, "gelu"),
    ),
    "attention": Case(Attention, (site("relu", "fc", 7, 4),), TOKENS),
    "attention's output": Case(Projected, (site("relu", "attention.out_proj", 8, 3),), TOKENS),
}
