"""Units of norms: a norm over parts of a layer's units does not merge them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import harness


class Normed(nn.Module):
    def __init__(self, norm: nn.Module, before: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.norm, self.b, self.before = nn.Linear(20, 96), norm, nn.Linear(96, 3), before
        with torch.no_grad():
            self.a.bias[:40] -= 50.0

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.norm(self.before(self.a(x))).flatten(1)))


@pytest.mark.parametrize(
    ("norm", "before"),
    [
        (nn.LayerNorm(24), lambda h: h.view(-1, 4, 24)),
        (nn.LayerNorm(1), lambda h: h[..., None]),
        (nn.RMSNorm(12), lambda h: h.unflatten(1, (8, 12))),
        (nn.BatchNorm1d(4).eval(), lambda h: h.view(-1, 4, 24)),
        (nn.BatchNorm1d(1).eval(), lambda h: h[:, None]),
        (nn.GroupNorm(2, 4), lambda h: h.view(-1, 4, 24)),
    ],
    ids=lambda one: type(one).__name__,
)
def test_every_unit_of_the_layer_is_counted(norm: nn.Module, before: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    model, x = Normed(norm, before).eval(), torch.randn(200, 20)
    given: list[Tensor] = []
    handle = model.b.register_forward_pre_hook(lambda module, args: given.append(args[0]))
    model(x)
    handle.remove()
    dead = ~(given[0] > 0).any(0)
    units = harness.scan(model, x).units
    assert (units["state"].eq("dead").to_numpy() == dead.numpy()).all()
    assert units["n"].eq(200).all()


def test_tokens_and_images_keep_the_channels_of_their_norms() -> None:
    tokens = nn.Sequential(nn.Linear(8, 12), nn.LayerNorm(12), nn.ReLU())
    assert harness.scan(tokens, torch.randn(4, 5, 8)).units["n"].tolist() == [20] * 12
    images = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval()
    assert harness.scan(images, torch.randn(2, 3, 6, 6)).units["n"].tolist() == [32] * 8
    shuffled = nn.Sequential(nn.Conv2d(3, 8, 3), nn.PixelShuffle(2), nn.BatchNorm2d(2), nn.ReLU()).eval()
    assert len(harness.scan(shuffled, torch.randn(2, 3, 6, 6)).units) == 2
