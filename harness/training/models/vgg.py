"""VGG for small images."""

from __future__ import annotations

from torch import Tensor, nn

from harness.config.schema import Activation, Vgg
from harness.training.models.layers import Convolution

#: Depth -> stages, each followed by pooling. The numbers are channels relative to the first stage
#: (configurations A, B and D of Simonyan & Zisserman 2014, arXiv 1409.1556, without the two hidden linear
#: layers; the depth still counts them).
STAGES: dict[int, tuple[tuple[int, ...], ...]] = {
    11: ((1,), (2,), (4, 4), (8, 8), (8, 8)),
    13: ((1, 1), (2, 2), (4, 4), (8, 8), (8, 8)),
    16: ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8)),
}


class VGG(nn.Module):
    """3x3 convolutions in five stages, global average, head: (N, C, H, W) -> (N, classes).

    Args:
        config: depth, channels of the first stage (64 in the paper), norm.
        activation: the activation.
        shape: (C, H, W) of one image; once a side is 1 there is no more pooling.
        classes: outputs.
    """

    def __init__(
        self, config: Vgg, activation: Activation, shape: tuple[int, int, int], classes: int
    ) -> None:
        super().__init__()
        inputs, side = shape[0], min(shape[1:])
        layers: list[Convolution] = []
        for stage in STAGES[config.depth]:
            for index, multiple in enumerate(stage):
                pool = index == len(stage) - 1 and side > 1
                channels = multiple * config.channels
                layers.append(Convolution(inputs, channels, config.norm, activation, pool=pool))
                inputs = layers[-1].outputs
                side = side // 2 if pool else side
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).mean((2, 3)))
