"""Unit axes: channels, features, and the norms and dropouts between layer and activation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from harness.selftest.case import Case, kill, normal
from harness.selftest.truth import Keep, TrueSite, site, through


class ConvNet(nn.Module):
    """Units are channels: alive at one position means alive."""

    def __init__(
        self, norm: Callable[[int], nn.Module] = lambda _: nn.Identity(), drop: bool = False
    ) -> None:
        super().__init__()
        self.conv1, self.norm1, self.relu1 = nn.Conv2d(2, 6, 3, padding=1), norm(6), nn.ReLU(inplace=True)
        self.conv2, self.norm2, self.relu2 = nn.Conv2d(6, 4, 3, stride=2, groups=2), norm(4), nn.ReLU()
        self.drop = nn.Dropout2d(0.3) if drop else nn.Identity()
        self.head = nn.Linear(4 * 3 * 3, 3)
        plain = isinstance(self.norm1, nn.Identity)
        kill(self.conv1 if plain else self.norm1, 0, 3)
        kill(self.conv2 if plain else self.norm2, 2)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        x = self.relu1(keep("relu1", self.drop(self.norm1(self.conv1(x)))))
        x = self.relu2(keep("relu2", self.norm2(self.conv2(x))))
        return self.head(x.flatten(1))


def conv_sites(producers: tuple[str, str]) -> tuple[TrueSite, ...]:
    return (site("relu1", producers[0], 6, 0, 3, axis=1), site("relu2", producers[1], 4, 2, axis=1))


def group_norm(units: int) -> nn.Module:
    return nn.GroupNorm(2, units)


def batch_norm_without_parameters(units: int) -> nn.Module:
    return nn.BatchNorm2d(units, affine=False)


class PlainNormConvNet(ConvNet):
    """BatchNorm without γ and β: the convolution is the nearest module with parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = batch_norm_without_parameters(6), batch_norm_without_parameters(4)


class NormMLP(nn.Module):
    """Linear → norm → dropout → ReLU, on any number of leading axes."""

    def __init__(self, norm: nn.Module, dropout: nn.Module) -> None:
        super().__init__()
        self.fc, self.norm, self.drop, self.relu = nn.Linear(6, 8), norm, dropout, nn.ReLU()
        self.head = nn.Linear(8, 3)
        if not isinstance(norm, nn.RMSNorm):  # RMSNorm has no bias
            kill(self.fc if isinstance(norm, nn.Identity) else norm, 1, 6)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        return self.head(self.relu(keep("relu", self.drop(self.norm(self.fc(x))))))


def norm_mlp_site(producer: str) -> tuple[TrueSite, ...]:
    return (site("relu", producer, 8, 1, 6),)


IMAGES = normal(4, 2, 8, 8)


CASES: dict[str, Case] = {
    "conv": Case(ConvNet, conv_sites(("conv1", "conv2")), IMAGES),
    "conv channels_last": Case(
        lambda: ConvNet().to(memory_format=torch.channels_last),  # pyright: ignore[reportCallIssue]
        conv_sites(("conv1", "conv2")),
        lambda: [x.contiguous(memory_format=torch.channels_last) for x in IMAGES()],
    ),
    "conv batchnorm": Case(lambda: ConvNet(nn.BatchNorm2d), conv_sites(("norm1", "norm2")), IMAGES),
    "conv batchnorm dropout": Case(
        lambda: ConvNet(nn.BatchNorm2d, drop=True), conv_sites(("norm1", "norm2")), IMAGES
    ),
    "conv groupnorm": Case(lambda: ConvNet(group_norm), conv_sites(("norm1", "norm2")), IMAGES),
    "conv plain batchnorm": Case(
        PlainNormConvNet,
        tuple(
            site(s.name, p, s.size, *s.dead, axis=1)
            for s, p in zip(conv_sites(("", "")), ("conv1", "conv2"), strict=True)
        ),
        IMAGES,
    ),
    "batchnorm1d": Case(lambda: NormMLP(nn.BatchNorm1d(8), nn.Identity()), norm_mlp_site("norm")),
    "layernorm": Case(lambda: NormMLP(nn.LayerNorm(8), nn.Identity()), norm_mlp_site("norm")),
    "layernorm sequence dropout": Case(
        lambda: NormMLP(nn.LayerNorm(8), nn.Dropout(0.4)), norm_mlp_site("norm"), normal(3, 5, 6)
    ),
    "rmsnorm": Case(
        lambda: NormMLP(nn.RMSNorm(8), nn.Identity()), (site("relu", "norm", 8),), needs=("torch.nn.RMSNorm",)
    ),
    "dropout": Case(lambda: NormMLP(nn.Identity(), nn.Dropout(0.5)), norm_mlp_site("fc")),
}
