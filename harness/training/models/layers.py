"""Building blocks of the networks: a linear map, an optional norm, one activation."""

from __future__ import annotations

from torch import Tensor, nn

from harness.config.schema import Activation, Norm
from harness.training.models.activations import make_activation, widening
from harness.training.models.wiring import Feed


def make_norm(norm: Norm, units: int, *, image: bool) -> nn.Module | None:
    """Create the norm layer for (N, units), or for (N, units, H, W) if `image`; None for Norm.none.

    Example:
        >>> make_norm(Norm.layer, 8, image=True)
        GroupNorm(1, 8, ...)
    """
    match norm:
        case Norm.batch:
            return nn.BatchNorm2d(units) if image else nn.BatchNorm1d(units)
        case Norm.layer:
            return nn.GroupNorm(1, units) if image else nn.LayerNorm(units)
        case Norm.none:
            return None


class Dense(nn.Module):
    """act(norm(linear(x))): (N, inputs) -> (N, outputs).

    Args:
        inputs: number of input features.
        units: number of pre-activations.
        norm: norm between the linear map and the activation. With a norm the linear map has no bias, since
            the norm's β replaces it.
        activation: the activation.

    Attributes:
        outputs: number of output features: units, or twice as many for CReLU.
    """

    feeds: tuple[Feed, ...]

    def __init__(self, inputs: int, units: int, norm: Norm, activation: Activation) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, units, bias=norm is Norm.none)
        self.norm = make_norm(norm, units, image=False)
        self.act = make_activation(activation, units)
        self.outputs = units * widening(activation)
        self.feeds = (Feed("act", "norm" if self.norm else "linear"),)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.pre_activation(x))

    def pre_activation(self, x: Tensor) -> Tensor:
        z = self.linear(x)
        return self.norm(z) if self.norm else z


class Convolution(nn.Module):
    """pool(act(norm(conv3x3(x)))): (N, inputs, H, W) -> (N, outputs, H', W').

    Args:
        inputs: number of input channels.
        units: channels of the pre-activation.
        norm: as in `Dense`; layer means GroupNorm with one group.
        activation: the activation.
        pool: whether a 2x2 max pooling follows.

    Attributes:
        outputs: number of output channels.
    """

    feeds: tuple[Feed, ...]

    def __init__(self, inputs: int, units: int, norm: Norm, activation: Activation, *, pool: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, units, 3, padding=1, bias=norm is Norm.none)
        self.norm = make_norm(norm, units, image=True)
        self.act = make_activation(activation, units)
        self.pool = nn.MaxPool2d(2) if pool else None
        self.outputs = units * widening(activation)
        self.feeds = (Feed("act", "norm" if self.norm else "conv"),)

    def forward(self, x: Tensor) -> Tensor:
        z = self.conv(x)
        a = self.act(self.norm(z) if self.norm else z)
        return self.pool(a) if self.pool else a


class PostAdd(Dense):
    """act(x + norm(linear(x))): the residual sum is the pre-activation, (N, units) -> (N, units)."""

    def __init__(self, units: int, norm: Norm, activation: Activation) -> None:
        super().__init__(units, units, norm, activation)
        self.feeds = tuple(Feed(feed.activation, feed.layer, summed=True) for feed in self.feeds)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x + self.pre_activation(x))


class Branch(Dense):
    """x + out(act(norm(linear(pre(x))))): (N, width) -> (N, width), with an identity shortcut.

    Args:
        width: number of input and output features.
        units: number of pre-activations of the branch.
        norm: as in `Dense`.
        activation: the activation; `out` maps CReLU's doubled width back to `width`.
        pre_norm: whether `pre` is a LayerNorm (Xiong et al. 2020, arXiv 2002.04745) or the identity.
        zero: whether `out` starts at exactly 0, so that the block starts as the identity (the idea of
            Goyal et al. 2017, arXiv 1706.02677, without the norm).
    """

    def __init__(
        self, width: int, units: int, norm: Norm, activation: Activation, *, pre_norm: bool, zero: bool
    ) -> None:
        super().__init__(width, units, norm, activation)
        self.pre = nn.LayerNorm(width) if pre_norm else None
        self.out = nn.Linear(self.outputs, width)
        self.outputs = width
        self.zeroed = ("out",) if zero else ()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.out(super().forward(self.pre(x) if self.pre else x))
