"""Copies of units with parameters of their own, sums over a part of a layer's axis, kernels of each input."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import harness

ROWS = 25


class Copies(nn.Module):
    """Four units of a layer, each twice; every other copy is closed by a bias of its own."""

    def __init__(self, copy: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.copy = nn.Linear(6, 4), copy
        bias = copy(torch.arange(4.0)[None])
        seen, low = set(), []
        for value in bias.flatten().tolist():
            low.append(-100.0 if value in seen else 0.0)
            seen.add(value)
        self.own = nn.Parameter(torch.tensor(low))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.copy(self.layer(x)) + self.own)


COPIES: dict[str, Callable[[Tensor], Tensor]] = {
    "repeat_interleave": lambda z: z.repeat_interleave(2, -1),
    "repeat": lambda z: z.repeat(1, 2),
    "cat": lambda z: torch.cat([z, z], -1),
    "index": lambda z: z[:, [0, 0, 1, 1, 2, 2, 3, 3]],
    "index_select": lambda z: z.index_select(1, torch.tensor([0, 1, 2, 3, 3, 2, 1, 0])),
    "expand": lambda z: z[..., None].expand(-1, -1, 2).reshape(len(z), -1),
}


@pytest.mark.parametrize("kind", COPIES)
def test_copies_with_biases_of_their_own_are_units(kind: str) -> None:
    torch.manual_seed(0)
    report = harness.scan(Copies(COPIES[kind]), [torch.randn(ROWS, 6)])
    assert report.units["n"].tolist() == [ROWS] * 8
    assert report.units["state"].eq("dead").sum() == 4


def test_hinges_at_constant_knots_are_units() -> None:
    class Hinges(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 4)
            self.register_buffer("knots", torch.tensor([0.0, 100.0]))

        def forward(self, x: Tensor) -> Tensor:
            return F.relu((self.layer(x)[..., None] - self.get_buffer("knots")).flatten(1))

    torch.manual_seed(0)
    report = harness.scan(Hinges(), [torch.randn(ROWS, 6)])
    assert report.units["n"].tolist() == [ROWS] * 8
    assert report.units["state"].eq("dead").tolist() == [False, True] * 4


def test_copies_that_share_a_bias_are_positions() -> None:
    class Same(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.own = nn.Linear(6, 4), nn.Parameter(torch.zeros(4, 1))

        def forward(self, x: Tensor) -> Tensor:
            return F.relu((self.layer(x)[..., None].expand(-1, -1, 2) + self.own).flatten(1))

    report = harness.scan(Same(), [torch.randn(ROWS, 6)])
    assert report.units["n"].tolist() == [2 * ROWS] * 4


class Sums(nn.Module):
    """Eight outputs of a layer, joined to four units."""

    def __init__(self, join: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.join, self.act = nn.Linear(6, 8), join, nn.ReLU()
        self.own = nn.Parameter(torch.tensor([0.0, -100.0, 0.0, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.join(self.layer(x)) + self.own)


@pytest.mark.parametrize(
    "join",
    [
        lambda z: z.view(-1, 2, 4).mean(1),
        lambda z: z.unflatten(-1, (2, 4)).sum(-2),
        lambda z: z.view(-1, 4, 2).logsumexp(-1),
        lambda z: z.view(-1, 2, 4).amax(1),
        lambda z: sum(z.chunk(2, -1)),
    ],
    ids=["mean", "sum", "logsumexp", "amax", "chunks"],
)
def test_units_remain_after_a_sum_over_another_part_of_the_axis(join: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    report = harness.scan(Sums(join), [torch.randn(ROWS, 6)])
    assert report.units["n"].tolist() == [ROWS] * 4
    assert report.units["state"].eq("dead").tolist() == [False, True, False, False]


class OwnKernels(nn.Module):
    """A kernel for each image, and all images as the groups of one convolution."""

    def __init__(self, by: str) -> None:
        super().__init__()
        self.by, self.act = by, nn.ReLU()
        self.kernels, self.route = nn.Parameter(torch.randn(2, 5 * 3 * 9)), nn.Linear(3, 2)
        self.own = nn.Parameter(torch.ones(5))
        self.conv = nn.Conv2d(3, 5, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        rows = len(x)
        if self.by == "convolution":
            kernel = (self.route(x.mean((2, 3))).softmax(-1) @ self.kernels).view(rows * 5, 3, 3, 3)
            z = F.conv2d(x.reshape(1, rows * 3, *x.shape[2:]), kernel, padding=1, groups=rows)
        else:
            z = self.conv(x).view(1, rows * 5, *x.shape[2:])
            z = F.batch_norm(z, None, None, self.own.repeat(rows), torch.zeros(5 * rows), training=True)
        return self.act(z.view(rows, 5, *x.shape[2:]))


@pytest.mark.filterwarnings("ignore:.*is unobserved")
@pytest.mark.parametrize("by", ["convolution", "batch norm"])
def test_images_as_groups_or_channels_are_no_units(by: str) -> None:
    torch.manual_seed(0)
    report = harness.scan(OwnKernels(by), [torch.randn(4, 3, 8, 8), torch.randn(3, 3, 8, 8)])
    rows = report.units[report.units["site"] == "act"]
    if by == "convolution":
        assert rows["state"].tolist() == ["unobserved"]
        assert "chosen for each of them" in report.plan.unobserved[0].reason
    else:
        assert rows["n"].tolist() == [7 * 64] * 5


def test_learned_centres_are_units() -> None:
    class Centres(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.centres, self.act = nn.Parameter(torch.randn(5, 6)), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.act(3 - torch.cdist(x, self.centres))

    report = harness.scan(Centres(), [torch.randn(ROWS, 6)])
    assert report.units["n"].tolist() == [ROWS] * 5


def test_a_deformable_convolution_is_one() -> None:
    ops = pytest.importorskip("torchvision.ops")

    class Deformed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.offsets, self.conv = nn.Conv2d(3, 18, 3, padding=1), ops.DeformConv2d(3, 5, 3, padding=1)
            self.act = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.conv(x, self.offsets(x)))

    report = harness.scan(Deformed(), [torch.randn(2, 3, 8, 8)])
    assert report.units["n"].tolist() == [2 * 64] * 5
    assert [site.producers for site in report.plan.sites] == [("conv",)]


def test_activations_of_sums_alone_are_named() -> None:
    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(1 - self.layer(x).square().sum(-1))

    with pytest.raises(ValueError, match=r"only on sums or distances that no longer contain units \(:relu\)"):
        harness.scan(Loss(), [torch.randn(ROWS, 6)])


class Laid(nn.Module):
    """Four channels of images, laid out otherwise and met by weights of positions."""

    def __init__(self, lay: Callable[..., Tensor]) -> None:
        super().__init__()
        self.conv, self.lay = nn.Conv2d(3, 4, 3, padding=1), lay
        self.places, self.patches = nn.Parameter(torch.zeros(1, 1, 8, 8)), nn.Parameter(torch.zeros(16, 16))
        self.norm, self.own = nn.BatchNorm1d(4 * 64), nn.Parameter(torch.zeros(4 * 64))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.lay(self, self.conv(x)))


LAID: dict[str, tuple[Callable[..., Tensor], int]] = {
    "position embedding": (lambda m, z: z + m.places, 4),
    "patches": (
        lambda m, z: z.view(-1, 4, 16, 4).transpose(1, 2).reshape(-1, 16, 16) + m.patches,
        4,
    ),
    "norm of flattened channels": (lambda m, z: m.norm(z.flatten(1)), 256),
    "affine of flattened channels": (lambda m, z: z.flatten(1) + m.own, 256),
}


@pytest.mark.parametrize("kind", LAID)
def test_weights_of_positions_make_no_units(kind: str) -> None:
    lay, size = LAID[kind]
    torch.manual_seed(0)
    report = harness.scan(Laid(lay), [torch.randn(2, 3, 8, 8)])
    assert len(report.units) == size


def test_pixels_are_no_units() -> None:
    class Shuffled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.last(F.relu(F.pixel_shuffle(self.conv(x), 2)).mean(1) - 0.1)

    report = harness.scan(Shuffled(), [torch.randn(2, 3, 4, 4)])
    assert report.plan.terms[0].name == "last"
    assert set(report.units["site"]) == {":relu"}
