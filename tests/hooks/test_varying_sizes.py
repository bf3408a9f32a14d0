"""Batches, sequences and graphs of another size at every step: no forward is lost."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import harness

STEPS, SIZES = 150, range(40, 140)

#: What stands between a layer and its activation; the units stay on the last axis.
BETWEEN: dict[str, Callable[[Tensor], Tensor]] = {
    "nothing": lambda z: z,
    "gathered rows": lambda z: z[torch.randperm(len(z))],
    "edges of a graph": lambda z: torch.cat([z, z])[torch.randint(len(z), (len(z),))],
    "selected rows": lambda z: z.index_select(0, torch.randperm(len(z))),
    "a part of the rows": lambda z: z[: len(z) // 2 + 1],
    "scaled": lambda z: z * 0.9,
    "rolled": lambda z: z.roll(len(z) // 3, 0),
    "beside no units": lambda z: torch.cat([z[:, :0], z], 1),
    "after no rows": lambda z: torch.cat([z.new_empty(0), z, z[:0]]),
}


class Net(nn.Module):
    """Three layers; keeps what its activations are called on."""

    def __init__(
        self, between: Callable[[Tensor], Tensor], act: Callable[[], Callable[[Tensor], Tensor]]
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))
        self.acts = [act() for _ in range(3)]
        if isinstance(self.acts[0], nn.Module):
            self.listed = nn.ModuleList(self.acts)  # pyright: ignore[reportArgumentType]
        self.between = between
        self.seen: list[list[Tensor]] = [[], [], []]

    def forward(self, x: Tensor) -> Tensor:
        for layer, act, seen in zip(self.layers, self.acts, self.seen, strict=True):
            z = self.between(layer(x))
            z.retain_grad()
            seen.append(z)
            x = act(z)
        return x


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize(
    "act", [nn.ReLU, lambda: F.relu, lambda: torch.relu], ids=["module", "F.relu", "torch.relu"]
)
def test_every_forward_counts(between: str, act: Callable[[], Callable[[Tensor], Tensor]]) -> None:
    torch.manual_seed(0)
    net = Net(BETWEEN[between], act)
    sizes = torch.randint(SIZES.start, SIZES.stop, (STEPS,)).tolist()
    with harness.Recorder(net, census_every=None) as recorder:
        for size in sizes:
            net(torch.randn(size, 6)).square().sum().backward()
            recorder.step()
    census = recorder.census()
    for (_, found), seen in zip(census.groupby("site", sort=False), net.seen, strict=True):
        z = torch.cat([one.detach() for one in seen])
        gradients = torch.cat([one.grad for one in seen if one.grad is not None]).double()
        assert set(found["n"]) == {len(z)}
        assert found["active"].tolist() == (z > 0).sum(0).tolist()
        np.testing.assert_allclose(found["grad_rms"], gradients.square().mean(0).sqrt(), rtol=1e-5)


@pytest.mark.parametrize("layer", ["conv1d", "conv2d", "sequence"])
def test_positions_vary_too(layer: str) -> None:
    torch.manual_seed(0)
    first = {"conv1d": nn.Conv1d(3, 4, 3), "conv2d": nn.Conv2d(3, 4, 3), "sequence": nn.Linear(3, 4)}[layer]
    net = nn.Sequential(first, nn.ReLU())
    axis, truth, n = (-1 if layer == "sequence" else 1), torch.zeros(4), 0
    with harness.Recorder(net, census_every=None) as recorder:
        for _ in range(STEPS):
            length = int(torch.randint(SIZES.start, SIZES.stop, ()))
            shape = {"conv1d": (2, 3, length), "conv2d": (1, 3, length // 4, 7), "sequence": (2, length, 3)}[
                layer
            ]
            x = torch.randn(shape)
            net(x).sum().backward()
            opened = (first(x).movedim(axis, -1) > 0).flatten(0, -2)
            truth, n = truth + opened.sum(0), n + len(opened)
            recorder.step()
    census = recorder.census()
    assert set(census["n"]) == {n}
    assert census["active"].tolist() == truth.tolist()
