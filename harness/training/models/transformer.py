"""A small vision transformer."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from harness.config.errors import ConfigError
from harness.config.schema import Activation, Norm, Transformer
from harness.training.models.layers import Branch


class Block(nn.Module):
    """x + attention(norm(x)), then x + MLP(LayerNorm(x)): (N, T, width) -> (N, T, width)."""

    def __init__(self, config: Transformer, activation: Activation) -> None:
        super().__init__()
        width = config.width
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, config.heads, batch_first=True)
        self.mlp = Branch(width, config.mlp_ratio * width, Norm.none, activation, pre_norm=True, zero=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        # flatten tokens into rows, so that the units lie on axis 1, as PReLU expects
        return self.mlp(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class VisionTransformer(nn.Module):
    """Patches, learned positions, pre-norm blocks, mean over tokens: (N, C, H, W) -> (N, classes).

    Source: Dosovitskiy et al. 2020, arXiv 2010.11929, with a mean instead of the class token.

    Args:
        config: patch size, width, depth, heads, ratio of the MLP's units to width.
        activation: the activation inside the blocks' MLPs.
        shape: (C, H, W) of one image.
        classes: outputs.
        generator: draws the positions, N(0, 0.02²); no initialisation scheme touches them.

    Raises:
        ConfigError: `model.patch` does not divide the sides, or `model.heads` does not divide the width.
    """

    def __init__(
        self,
        config: Transformer,
        activation: Activation,
        shape: tuple[int, int, int],
        classes: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        channels, height, width = shape
        _divides(
            "model.patch", config.patch, math.gcd(height, width), f"the sides of {height}x{width} images"
        )
        _divides("model.heads", config.heads, config.width, f"model.width={config.width}")
        tokens = (height // config.patch) * (width // config.patch)
        self.patches = nn.Conv2d(channels, config.width, config.patch, stride=config.patch)
        self.positions = nn.Parameter(0.02 * torch.randn(tokens, config.width, generator=generator))
        self.blocks = nn.Sequential(*(Block(config, activation) for _ in range(config.depth)))
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.blocks(tokens).mean(1)))


def _divides(key: str, value: int, whole: int, what: str) -> None:
    if whole % value:
        works = [str(d) for d in range(1, whole + 1) if whole % d == 0]
        raise ConfigError(key, expected=f"a divisor of {what} ({', '.join(works)})", came=value)
