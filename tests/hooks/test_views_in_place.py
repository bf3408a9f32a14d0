"""Activations that write into a view: autograd replaces its node, and yet its gradients are known."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import harness


class Block(nn.Module):
    """A layer, a view of its output, an activation, and an output."""

    def __init__(self, view: Callable[[Tensor], Tensor], activate: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.view, self.activate = nn.Conv2d(2, 4, 3), view, activate

    def forward(self, x: Tensor) -> Tensor:
        return self.activate(self.view(self.layer(x))) * 3


VIEWS = {
    "normalised": nn.InstanceNorm2d(4),
    "flattened": lambda h: h.flatten(2),
    "transposed": lambda h: h.transpose(1, 3),
    "unsqueezed": lambda h: h.unsqueeze(1),
    "sliced": lambda h: h[:, 1:3],
    "viewed twice": lambda h: h.flatten(2)[:, :, 2:].transpose(1, 2),
    "channels last": lambda h: h.contiguous(memory_format=torch.channels_last).flatten(2),
}


def census(model: nn.Module, inputs: Callable[[], Tensor], steps: int = 12) -> harness.Recorder:
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    torch.manual_seed(1)
    with harness.Recorder(model, optimizer=optimizer, census_every=None) as recorder:
        for _ in range(steps):
            out = model(inputs())
            (out * torch.linspace(-1, 1, out.numel()).view(out.shape)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            recorder.step()
    return recorder


def images() -> Tensor:
    return torch.randn(3, 2, 5, 5)


def block(view: Callable[[Tensor], Tensor], activate: Callable[[Tensor], Tensor]) -> nn.Module:
    torch.manual_seed(0)
    return Block(view, activate)


def compare(apart: nn.Module, within: nn.Module, inputs: Callable[[], Tensor] = images) -> None:
    wanted, found = census(apart, inputs).latest, census(within, inputs).latest
    assert wanted is not None
    assert found is not None
    assert not wanted.grad_rms.isna().any()
    assert found.n.tolist() == wanted.n.tolist()
    np.testing.assert_allclose(found.grad_rms, wanted.grad_rms, rtol=1e-5)


@pytest.mark.parametrize("name", VIEWS)
def test_modules(name: str) -> None:
    compare(block(VIEWS[name], nn.ReLU()), block(VIEWS[name], nn.ReLU(inplace=True)))


@pytest.mark.parametrize(
    "activate",
    [
        lambda z: F.relu(z, inplace=True),
        lambda z: F.relu(z, True),
        lambda z: F.relu_(z),
        lambda z: z.relu_(),
        lambda z: z.clamp_(min=0),
    ],
)
def test_functions(activate: Callable[[Tensor], Tensor]) -> None:
    compare(block(VIEWS["flattened"], F.relu), block(VIEWS["flattened"], activate))


def test_a_linear_layer_on_sequences() -> None:
    def model(*, inplace: bool) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace), nn.Linear(4, 2))

    compare(model(inplace=False), model(inplace=True), lambda: torch.randn(2, 5, 3))


def test_both_ways_in_one_module() -> None:
    """The same function, once on a view in place, once apart."""

    def twice(h: Tensor) -> Tensor:
        return F.relu(F.relu(h.flatten(2) - 1, inplace=False).flatten(1) - 0.1, inplace=True)

    def apart(h: Tensor) -> Tensor:
        return F.relu(F.relu(h.flatten(2) - 1).flatten(1) - 0.1)

    compare(block(nn.Identity(), apart), block(nn.Identity(), twice))


def test_starved_units_are_found() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.InstanceNorm2d(6), nn.ReLU(True), nn.Flatten(), nn.Linear(54, 2)
    )
    last = model[4]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight.view(2, 6, 9)[:, :3] = 0
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    with harness.Recorder(model, optimizer=optimizer, census_every=None) as recorder:
        for _ in range(20):
            model(images()).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            recorder.step()
    units = recorder.latest
    assert units is not None
    assert units.state.tolist() == ["starved"] * 3 + ["active"] * 3


def test_the_training_is_the_same() -> None:
    def train(*, watched: bool) -> list[Tensor]:
        model = block(VIEWS["normalised"], nn.ReLU(inplace=True))
        if watched:
            census(model, images)
        else:
            optimizer = torch.optim.SGD(model.parameters(), 0.05)
            torch.manual_seed(1)
            for _ in range(12):
                out = model(images())
                (out * torch.linspace(-1, 1, out.numel()).view(out.shape)).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
        return [parameter.detach() for parameter in model.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(train(watched=True), train(watched=False), strict=True))


def test_no_graph_is_kept_alive() -> None:
    def alive(*, inplace: bool) -> int:
        model, kept = block(VIEWS["flattened"], nn.ReLU(inplace)), []
        with harness.Recorder(model, census_every=None) as recorder:
            for _ in range(30):
                given = images().requires_grad_()
                kept.append(weakref.ref(given))
                model(given).sum().backward()
                recorder.step()
        return sum(one() is not None for one in kept)

    gc.disable()
    try:
        assert alive(inplace=True) == alive(inplace=False)  # a cycle through autograd's nodes is never freed
    finally:
        gc.enable()
