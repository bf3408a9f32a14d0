"""The multilayer perceptron, plain or residual."""

from __future__ import annotations

import math

from torch import Tensor, nn

from harness.config.schema import Activation, Mlp, Skip
from harness.training.models.activations import refuse_widening
from harness.training.models.layers import Branch, Dense, PostAdd


class MLP(nn.Module):
    """`depth` activations of `width` units, then the head: (N, *shape) -> (N, classes).

    skip=none is a plain chain. Otherwise a linear `stem` maps the input to `width`, and each of the `depth`
    blocks has one activation, so that depth means the same in every arm: post_add is act(x + linear(x)),
    pre_norm is x + out(act(linear(LayerNorm(x)))), and zero_init is x + out(act(linear(x))) with `out`
    initialised to exactly 0.

    Args:
        config: sizes, norm and skip.
        activation: the activation.
        shape: shape of one input; images are flattened.
        classes: outputs.

    Raises:
        ConfigError: skip=post_add with CReLU, whose output does not fit the sum.
    """

    def __init__(self, config: Mlp, activation: Activation, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        features, width, norm = math.prod(shape), config.width, config.norm
        residual = config.skip is not Skip.none
        self.stem = nn.Linear(features, width) if residual else None
        blocks: list[Dense] = []
        if config.skip is Skip.post_add:
            refuse_widening(activation, "model.skip=post_add")
        for _ in range(config.depth):
            match config.skip:
                case Skip.none:
                    inputs = blocks[-1].outputs if blocks else features
                    blocks.append(Dense(inputs, width, norm, activation))
                case Skip.post_add:
                    blocks.append(PostAdd(width, norm, activation))
                case Skip.pre_norm:
                    blocks.append(Branch(width, width, norm, activation, pre_norm=True, zero=False))
                case Skip.zero_init:
                    blocks.append(Branch(width, width, norm, activation, pre_norm=False, zero=True))
        self.layers = nn.Sequential(*blocks)
        self.head = nn.Linear(blocks[-1].outputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return self.head(self.layers(self.stem(x) if self.stem else x))
