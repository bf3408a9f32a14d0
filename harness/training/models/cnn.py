"""A small convolutional network."""

from __future__ import annotations

from torch import Tensor, nn

from harness.config.schema import Activation, Cnn
from harness.training.models.layers import Convolution, Dense


class CNN(nn.Module):
    """Two 3x3 convolutions with pooling, one hidden linear layer: (N, C, H, W) -> (N, classes).

    Args:
        config: channels of the first convolution (the second has twice as many), width, norm.
        activation: the activation.
        shape: (C, H, W) of one image; there is no pooling once a side is 1.
        classes: outputs.
    """

    def __init__(
        self, config: Cnn, activation: Activation, shape: tuple[int, int, int], classes: int
    ) -> None:
        super().__init__()
        inputs, *sides = shape
        layers: list[Convolution] = []
        for channels in (config.channels, 2 * config.channels):
            pool = min(sides) > 1
            layers.append(Convolution(inputs, channels, config.norm, activation, pool=pool))
            inputs = layers[-1].outputs
            sides = [side // 2 for side in sides] if pool else sides
        self.layers = nn.Sequential(*layers)
        self.hidden = Dense(inputs * sides[0] * sides[1], config.width, config.norm, activation)
        self.head = nn.Linear(self.hidden.outputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden(self.layers(x).flatten(1)))
