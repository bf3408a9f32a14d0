"""Residual networks for small images: He et al.'s ResNet-20, and torchvision's ResNet-18.

Source: He et al. 2015, arXiv 1512.03385 (section 4.2 for CIFAR).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from harness.config.schema import Activation
from harness.training.models.activations import make_activation, refuse_widening
from harness.training.models.wiring import Feed


def _conv3x3(inputs: int, channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, channels, 3, stride, padding=1, bias=False)


class Block(nn.Module):
    """act2(shortcut(x) + norm2(conv2(act1(norm1(conv1(x)))))), one activation module per call.

    The shortcut has no parameters (option A): it subsamples pixels by `stride` and pads new channels with
    zeros.
    """

    feeds = (Feed("act1", "norm1"), Feed("act2", "norm2", summed=True))

    def __init__(self, inputs: int, channels: int, stride: int, activation: Activation) -> None:
        super().__init__()
        self.conv1 = _conv3x3(inputs, channels, stride)
        self.norm1 = nn.BatchNorm2d(channels)
        self.act1 = make_activation(activation, channels)
        self.conv2 = _conv3x3(channels, channels)
        self.norm2 = nn.BatchNorm2d(channels)
        self.act2 = make_activation(activation, channels)
        self.stride = stride
        self.new_channels = channels - inputs

    def forward(self, x: Tensor) -> Tensor:
        branch = self.norm2(self.conv2(self.act1(self.norm1(self.conv1(x)))))
        if self.stride > 1 or self.new_channels:
            before = self.new_channels // 2
            padding = (0, 0, 0, 0, before, self.new_channels - before)
            x = F.pad(x[:, :, :: self.stride, :: self.stride], padding)
        return self.act2(x + branch)


class ResNet20(nn.Module):
    """Three stages of three blocks with 16, 32 and 64 channels: (N, C, H, W) -> (N, classes).

    Args:
        activation: any but CReLU.
        shape: (C, H, W) of one image.
        classes: outputs.

    Raises:
        ConfigError: CReLU, whose output does not fit the shortcuts.
    """

    feeds = (Feed("act", "norm"),)

    def __init__(self, activation: Activation, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        refuse_widening(activation, "model=resnet")
        self.conv = _conv3x3(shape[0], 16)
        self.norm = nn.BatchNorm2d(16)
        self.act = make_activation(activation, 16)
        blocks, inputs = [], 16
        for channels in (16, 32, 64):
            for _ in range(3):
                blocks.append(Block(inputs, channels, channels // inputs, activation))
                inputs = channels
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.conv(x)))
        return self.head(self.blocks(x).mean((2, 3)))


class ResNet18(nn.Module):
    """torchvision's ResNet-18 with a 3x3 stem of stride 1 and no pooling: (N, C, H, W) -> (N, classes).

    As in torchvision, each block calls one activation module twice, which makes two sites.

    Args:
        activation: any but CReLU.
        shape: (C, H, W) of one image.
        classes: outputs.

    Raises:
        ConfigError: CReLU, whose output does not fit the shortcuts.
    """

    def __init__(self, activation: Activation, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        from torchvision.models.resnet import (
            BasicBlock,
            resnet18,
        )  # imported here because it takes seconds

        refuse_widening(activation, "model=resnet")
        self.body = resnet18(weights=None)
        self.body.conv1 = _conv3x3(shape[0], 64)
        self.body.add_module("relu", make_activation(activation, 64))
        self.body.add_module("maxpool", nn.Identity())
        self.head = nn.Linear(self.body.fc.in_features, classes)
        self.body.add_module("fc", nn.Identity())
        feeds = [Feed("body.relu", "body.bn1")]
        for name, block in self.named_modules():
            if isinstance(block, BasicBlock):
                block.add_module("relu", make_activation(activation, block.conv2.out_channels))
                feeds.append(Feed(f"{name}.relu", f"{name}.bn1"))
                feeds.append(Feed(f"{name}.relu", f"{name}.bn2", summed=True))
        self.feeds = tuple(feeds)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))
