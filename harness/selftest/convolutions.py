"""Convolutions of every dimension, transposed, grouped, depthwise, with and without a batch axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from harness.selftest.case import Case, kill, normal
from harness.selftest.truth import Keep, site, through


class Conv1dNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm, self.relu = nn.Conv1d(3, 5, 3), nn.BatchNorm1d(5), nn.ReLU()
        self.conv2, self.head = nn.Conv1d(5, 4, 3), nn.Linear(4, 2)
        kill(self.norm, 1)
        kill(self.conv2, 0)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        x = self.relu(keep("relu", self.norm(self.conv1(x))))
        x = self.relu(keep("relu#1", self.conv2(x)))
        return self.head(x.mean(-1))


class Convolved(nn.Module):
    """Any convolution with six units, an optional norm, and ReLU; units 1 and 4 are dead."""

    def __init__(self, conv: Any, norm: Any = None) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = conv, norm or nn.Identity(), nn.ReLU()
        self.head = nn.Linear(6, 2)
        self.dims = conv.weight.ndim - 2
        if norm is not None:
            kill(norm, 1, 4)
        elif isinstance(conv, nn.modules.conv._ConvTransposeNd):
            kill_transposed(conv, 1, 4)
        else:
            kill(conv, 1, 4)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        x = self.relu(keep("relu", self.norm(self.conv(x))))
        return self.head(x.flatten(-self.dims).mean(-1))


def kill_transposed(conv: Any, *units: int) -> None:
    """Kill units of a transposed convolution, whose weight is (inputs, units per group, …) by groups."""
    blocks = torch.split(conv.weight.data, conv.in_channels // conv.groups)
    per_group = conv.out_channels // conv.groups
    for unit in units:
        blocks[unit // per_group][:, unit % per_group] = 0
        conv.bias.data[unit] = -1


def case(
    make: Callable[[], nn.Module],
    *shape: int,
    dims: int,
    norm: Callable[[], nn.Module] | None = None,
    transposed: bool = False,
) -> Case:
    """A `Convolved` on inputs of a shape; dims: 1, 2 or 3."""
    true = site("relu", "conv" if norm is None else "norm", 6, 1, 4, axis=-dims - 1, transposed=transposed)
    return Case(lambda: Convolved(make(), None if norm is None else norm()), (true,), normal(*shape))


CASES: dict[str, Case] = {
    "conv1d": Case(
        Conv1dNet,
        (site("relu", "norm", 5, 1, axis=1), site("relu#1", "conv2", 4, 0, axis=1)),
        normal(4, 3, 9),
    ),
    # as many positions as units: only the layer shows which axis is which
    "conv1d square": case(lambda: nn.Conv1d(3, 6, 3, padding=1), 4, 3, 6, dims=1),
    "conv1d of one position": case(lambda: nn.Conv1d(3, 6, 3), 4, 3, 3, dims=1),
    "conv1d strided dilated": case(lambda: nn.Conv1d(3, 6, 3, stride=2, dilation=2), 4, 3, 15, dims=1),
    "conv2d unbatched": case(lambda: nn.Conv2d(2, 6, 3), 2, 6, 6, dims=2),
    "conv2d depthwise": case(lambda: nn.Conv2d(6, 6, 3, groups=6), 3, 6, 6, 6, dims=2),
    "conv2d instancenorm": case(
        lambda: nn.Conv2d(2, 6, 3), 3, 2, 6, 6, dims=2, norm=lambda: nn.InstanceNorm2d(6, affine=True)
    ),
    "conv3d": case(lambda: nn.Conv3d(2, 6, 2), 3, 2, 4, 4, 4, dims=3),
    "conv3d batchnorm": case(
        lambda: nn.Conv3d(2, 6, 2), 3, 2, 4, 3, 4, dims=3, norm=lambda: nn.BatchNorm3d(6)
    ),
    "conv3d groupnorm": case(
        lambda: nn.Conv3d(2, 6, 2, groups=2), 3, 2, 4, 3, 4, dims=3, norm=lambda: nn.GroupNorm(3, 6)
    ),
    "transposed conv": case(
        lambda: nn.ConvTranspose2d(3, 6, 2, stride=2), 3, 3, 4, 4, dims=2, transposed=True
    ),
    "transposed conv1d groups": case(
        lambda: nn.ConvTranspose1d(4, 6, 3, groups=2), 3, 4, 6, dims=1, transposed=True
    ),
    "transposed conv2d groups": case(
        lambda: nn.ConvTranspose2d(6, 6, 3, groups=3), 3, 6, 4, 4, dims=2, transposed=True
    ),
    "transposed conv3d depthwise": case(
        lambda: nn.ConvTranspose3d(6, 6, 2, groups=6), 2, 6, 3, 3, 3, dims=3, transposed=True
    ),
}
