"""PyTorch's own transformers, whose evaluation has a fast path that runs a layer in one kernel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from tests.zoo.models import Animal, any_loss, last


def animals() -> Iterator[Animal]:
    sizes: dict[str, Any] = {"d_model": 16, "nhead": 2, "dim_feedforward": 32, "batch_first": True}

    def encoder(**options: Any) -> nn.Module:
        return nn.TransformerEncoder(nn.TransformerEncoderLayer(**sizes, **options), 2)

    def sentence() -> torch.Tensor:
        return torch.randn(2, 5, 16)

    yield Animal("torch/encoder", encoder, sentence, any_loss, last)
    yield Animal("torch/encoder_gelu", lambda: encoder(activation="gelu"), sentence, any_loss, last)
    yield Animal(
        "torch/transformer",
        lambda: nn.Transformer(num_encoder_layers=2, num_decoder_layers=2, **sizes),
        lambda: {"src": sentence(), "tgt": sentence()},
        any_loss,
        last,
    )
