"""Hand-written cells: all time steps are one site, also where the first one has no state yet."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import harness


class Net(nn.Module):
    """Keeps its own pre-activations, so that the truth is independent of what the hooks know."""

    def __init__(self, run: Callable[[Net, Tensor], Tensor], call: str = "module") -> None:
        super().__init__()
        self.wx, self.wh, self.start = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(5, 8)
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.h0 = nn.Parameter(torch.ones(1, 8))
        self.run, self.relu = run, nn.ReLU() if call == "module" else F.relu
        self.seen: list[Tensor] = []

    def act(self, z: Tensor) -> Tensor:
        self.seen.append(z.detach().clone())
        return self.relu(z)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def no_state(net: Net, x: Tensor) -> Tensor:
    h = None
    for xt in x.unbind(1):
        z = net.wx(xt)
        h = net.act(z if h is None else z + net.wh(h))
    assert h is not None
    return h


def zeros(net: Net, x: Tensor) -> Tensor:
    h = torch.zeros(len(x), 8)
    for xt in x.unbind(1):
        h = net.act(net.wx(xt) + net.wh(h))
    return h


def made_by_a_layer(net: Net, x: Tensor) -> Tensor:
    h = net.start(x[:, 0])
    for xt in x.unbind(1):
        h = net.act(net.wx(xt) + net.wh(h))
    return h


def learned(net: Net, x: Tensor) -> Tensor:
    h = net.h0
    for xt in x.unbind(1):
        h = net.act(net.wx(xt) + net.wh(h))
    return h


def leaky_state(net: Net, x: Tensor) -> Tensor:
    v = x.new_zeros(len(x), 8)
    for xt in x.unbind(1):
        v = 0.9 * v + net.wx(xt) + net.wh(net.act(v))
    return v


def membrane(net: Net, x: Tensor) -> Tensor:
    v = None
    for xt in x.unbind(1):
        v = net.wx(xt) if v is None else 0.9 * v + net.wx(xt)
        spike = net.act(v - 0.1)
        v = v - (spike.detach() > 0).float()
    assert v is not None
    return v


def membrane_of_a_layer(net: Net, x: Tensor) -> Tensor:
    v = net.start(x[:, 0])
    for xt in x.unbind(1):
        v = 0.9 * v + net.wx(xt)
        v = v - net.act(v - 0.1).detach()
    return v


CELLS = [no_state, zeros, made_by_a_layer, learned, leaky_state, membrane, membrane_of_a_layer]


def residual_stream(net: Net, x: Tensor) -> Tensor:
    h = net.start(x[:, 0])
    for block in net.blocks:
        h = h + block(net.act(h))
    return net.act(h)


def layers(net: Net, x: Tensor) -> Tensor:
    h = net.act(net.wx(x[:, 0]))
    for block in net.blocks:
        h = net.act(block(h))
    return h


def an_input_and_layers(net: Net, x: Tensor) -> Tensor:
    h = net.act(torch.cat([x[:, 0], x[:, 1, :3]], 1))
    for block in net.blocks:
        h = net.act(block(h))
    return h


def with_the_input_added(net: Net, x: Tensor) -> Tensor:
    z = net.wx(x[:, 0])
    return net.act(z) + net.act(z + torch.cat([x[:, 1], x[:, 2, :3]], 1))


def with_what_it_returned_added(net: Net, x: Tensor) -> Tensor:
    z = net.wx(x[:, 0])
    return net.act(z + net.act(z))


def train(net: Net, steps: int = 12) -> harness.Recorder:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    with harness.Recorder(net, optimizer=optimizer, census_every=None) as recorder:
        for _ in range(steps):
            optimizer.zero_grad()
            net(torch.randn(4, 6, 5)).sum().backward()
            optimizer.step()
            recorder.step()
        recorder.census()
    return recorder


@pytest.mark.parametrize("call", ["module", "function"])
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.__name__)
def test_a_cell_is_one_site(cell: Callable[[Net, Tensor], Tensor], call: str) -> None:
    torch.manual_seed(0)
    net = Net(cell, call)
    recorder = train(net)
    census, z = recorder.latest, torch.cat(net.seen)
    assert census is not None
    assert set(census.site) == {"relu" if call == "module" else ":relu"}
    assert set(census.n) == {len(z)} == {12 * 6 * 4}
    assert census.active.tolist() == (z > 0).sum(0).tolist()
    assert not recorder.sites[0].guessed
    assert {"wx"} <= set(recorder.sites[0].producers)
    assert len(recorder.plan.sites) == 1


SEVERAL = [
    residual_stream,
    layers,
    an_input_and_layers,
    with_the_input_added,
    with_what_it_returned_added,
]


@pytest.mark.filterwarnings("ignore:.*is a guess")  # the activation of the input itself
@pytest.mark.parametrize("call", ["module", "function"])
@pytest.mark.parametrize("run", SEVERAL, ids=lambda run: run.__name__)
def test_one_activation_behind_several_layers_is_several_sites(
    run: Callable[[Net, Tensor], Tensor], call: str
) -> None:
    torch.manual_seed(0)
    net = Net(run, call)
    census, calls = train(net).latest, len(net.seen) // 12
    assert census is not None
    found = [(g.n.iloc[0], g.active.tolist()) for _, g in census.groupby("site", sort=False)]
    assert found == [(12 * 4, (torch.cat(net.seen[k::calls]) > 0).sum(0).tolist()) for k in range(calls)]


@pytest.mark.parametrize("kept", ["argument", "attribute"])
def test_a_cell_that_the_loop_calls_step_by_step_is_one_site(kept: str) -> None:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wx, self.wh, self.h = nn.Linear(5, 8), nn.Linear(8, 8), None

        def forward(self, x: Tensor, h: Tensor | None = None) -> Tensor:
            h = self.h if kept == "attribute" else h
            z = self.wx(x)
            h = F.relu(z if h is None else 0.5 * z + self.wh(h))
            self.h = h
            return h

    torch.manual_seed(0)
    cell = Cell()
    with harness.Recorder(cell, census_every=None) as recorder:
        for _ in range(20):
            cell.h = None
            h = cell(torch.randn(4, 5))
            for _ in range(5):
                h = cell(torch.randn(4, 5), h)
            h.sum().backward()
            recorder.step()
        census = recorder.census()
    assert set(census.site) == {":relu"}
    assert set(census.n) == {20 * 6 * 4}


def test_calls_of_a_cell_can_be_kept_apart() -> None:
    torch.manual_seed(0)
    report = harness.scan(Net(no_state), torch.randn(4, 6, 5), per_call=True)
    assert report.units.groupby("site").ngroups == 6
