"""Units in unusual places: views, matrix products, loss terms, other widths."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.selftest.case import Case, kill, normal
from harness.selftest.truth import Keep, site, through


class OneUnit(nn.Module):
    """A layer of one unit whose axis is dropped before the activation: the batch is not a unit axis."""

    def __init__(self, drop: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fc, self.drop = nn.Linear(6, 1), drop

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        return F.relu(self.drop(keep(":relu", self.fc(x))))


class Hidden(nn.Module):
    """One layer of eight units and its ReLU; some units are dead."""

    def __init__(self, *dead: int) -> None:
        super().__init__()
        self.fc, self.act, self.head = nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)
        kill(self.fc, *dead)


class Viewed(Hidden):
    """A layer's output, reshaped for the activation and back."""

    def __init__(self, view: Callable[[Tensor], Tensor]) -> None:
        super().__init__(1, 6)
        self.view = view

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        z = keep("act", self.fc(x))
        return self.head(self.act(self.view(z)).reshape(z.shape))


class Transposed(Hidden):
    """(batch, positions, units) at the layer, (batch, units, positions) at the activation."""

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        z = self.act(keep("act", self.fc(x)).transpose(1, 2))
        return self.head(z.transpose(1, 2))


class Products(nn.Module):
    """A custom weight as the left factor: its rows are the units, wherever the product puts them."""

    def __init__(self, product: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.weight, self.head, self.product = nn.Parameter(torch.randn(5, 6)), nn.Linear(4, 2), product
        with torch.no_grad():
            self.weight[3] = 0  # never positive

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        return self.head(F.relu(keep(":relu", self.product(self.weight, x))))


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm of images over their channels, as in torchvision and timm."""

    def forward(self, input: Tensor) -> Tensor:
        x = F.layer_norm(input.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class ChannelsFirstNorm(nn.Module):
    """A norm of channels that subclasses one for features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(2, 6, 3), LayerNorm2d(6), nn.ReLU()
        self.head = nn.Linear(6, 2)
        kill(self.norm, 0, 4)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        return self.head(self.act(keep("act", self.norm(self.conv(x)))).mean((2, 3)))


class TwoWeights(nn.Module):
    """One module with two weights: two layers, each with its own units."""

    def __init__(self) -> None:
        super().__init__()
        self.w1, self.b1 = nn.Parameter(torch.randn(6, 7)), nn.Parameter(torch.zeros(7))
        self.w2, self.b2 = nn.Parameter(torch.randn(7, 7)), nn.Parameter(torch.zeros(7))
        self.head = nn.Linear(7, 2)
        with torch.no_grad():
            self.w1[:, 2], self.b1[2] = 0, -1
            self.w2[:, 5], self.b2[5] = 0, -1

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        x = F.relu(keep(":relu", x @ self.w1 + self.b1))
        return self.head(F.relu(keep(":relu#1", x @ self.w2 + self.b2)))


class Hinge(Hidden):
    """A loss term inside the forward: distances are not units."""

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        embedded = self.head(self.act(keep("act", self.fc(x))))
        near = (embedded - embedded.roll(1, 0)).square().sum(-1)
        far = (embedded - embedded.roll(2, 0)).square().sum(-1)
        return embedded.mean() + (near - far + 0.2).clamp(min=0).mean()


class Widths(Hidden):
    """One layer, used at two widths in turn: the narrow calls are a separate site."""

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        wide = self.head(self.act(keep("act", self.fc(x))))
        narrow = self.act(keep("act[4]", F.linear(x, self.fc.weight[:4], self.fc.bias[:4])))
        return wide + F.linear(narrow, self.head.weight[:, :4])


class Tries(Hidden):
    """A call that raises does not count."""

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        z = keep("act", self.fc(x))
        act: Any = self.act
        try:
            z = act(z, lengths=len(x))
        except TypeError:
            z = act(z)
        return self.head(z)


class Agent(nn.Module):
    """A model called through its own method, never as a module."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Linear(6, 8), nn.ReLU()), nn.Linear(8, 2)
        kill(self.body[0], 2)

    def act(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        return self.head(self.body[1](keep("body.1", self.body[0](x))))


def unit(drop: Callable[[Tensor], Tensor]) -> Case:
    return Case(partial(OneUnit, drop), (site(":relu", "fc", 1),))


def viewed(view: Callable[[Tensor], Tensor], *shape: int) -> Case:
    true = site("act", "fc", 8, 1, 6)
    return Case(partial(Viewed, view), (true,), normal(*shape))


def product(of: Callable[[Tensor, Tensor], Tensor]) -> Case:
    true = site(":relu", "weight", 5, 3, axis=1)
    return Case(partial(Products, of), (true,), normal(3, 6, 4))


CASES: dict[str, Case] = {
    "one unit squeezed": unit(lambda z: z.squeeze(-1)),
    "one unit selected": unit(lambda z: z[:, 0]),
    "one unit flattened": unit(lambda z: z.flatten()),
    "one unit viewed": unit(lambda z: z.view(-1)),
    "heads": viewed(lambda z: z.view(*z.shape[:2], 2, 4), 3, 5, 6),
    "heads in front": viewed(lambda z: z.unflatten(-1, (4, 2)), 16, 6),
    "positions flattened": viewed(lambda z: z.flatten(0, 1), 3, 5, 6),
    "positions last": Case(partial(Transposed, 1, 6), (site("act", "fc", 8, 1, 6),), normal(3, 5, 6)),
    "weight @ x": product(lambda weight, x: weight @ x),
    "einsum": product(lambda weight, x: torch.einsum("oc,bcl->bol", weight, x)),
    "bmm": product(lambda weight, x: torch.bmm(weight.expand(len(x), -1, -1), x)),
    "layernorm of images": Case(
        ChannelsFirstNorm, (site("act", "norm", 6, 0, 4, axis=1),), normal(4, 2, 6, 6)
    ),
    "two weights of one module": Case(
        TwoWeights,
        (site(":relu", "w1", 7, 2), site(":relu#1", "w2", 7, 5)),
    ),
    "term of a loss": Case(partial(Hinge, 3), (site("act", "fc", 8, 3),)),
    "other widths": Case(
        partial(Widths, 1, 6),
        (site("act", "fc", 8, 1, 6), site("act[4]", "fc", 4, 1)),
        train=False,
    ),
    "a call that raises": Case(partial(Tries, 1), (site("act", "fc", 8, 1),)),
    "called by a method": Case(Agent, (site("body.1", "body.0", 8, 2),), wrap=lambda model: model.act),
}
