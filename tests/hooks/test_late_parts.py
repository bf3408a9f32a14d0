"""Parts that are called by themselves late and without a graph, as a flow's are in `sample()`."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import harness


class Block(nn.Module):
    """Its activation is a module, or a function."""

    def __init__(self, call: str) -> None:
        super().__init__()
        self.fc, self.out = nn.Linear(2, 8), nn.Linear(8, 2)
        self.act = nn.ReLU() if call == "module" else F.relu

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.act(self.fc(x)))


class Coupling(nn.Module):
    """A part inside of a part, that `inverse` calls without a forward of its own."""

    def __init__(self, call: str) -> None:
        super().__init__()
        self.block = Block(call)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)

    def inverse(self, y: Tensor) -> Tensor:
        return y - self.block(y)


class Flow(nn.Module):
    def __init__(self, call: str, root: bool) -> None:
        super().__init__()
        self.couplings = nn.ModuleList(Coupling(call) for _ in range(3))
        self.root, self.seen = root, [torch.zeros(8) for _ in range(3)]
        self.calls = [list[int]() for _ in range(3)]  # inputs of each
        for place, coupling in enumerate(self.couplings):
            coupling.get_submodule("block.fc").register_forward_hook(
                lambda *call, place=place: self.look(place, call[2])
            )

    def look(self, place: int, z: Tensor) -> None:
        self.calls[place].append(len(z))
        self.seen[place] += (z > 0).sum(0)

    def forward(self, x: Tensor) -> Tensor:
        for coupling in self.couplings:
            x = coupling(x)
        return x.square().mean()

    def loss(self, x: Tensor) -> Tensor:
        return self(x) if self.root else self.forward(x)

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        y = torch.randn(n, 2)
        for coupling in reversed(self.couplings):
            y = coupling.inverse(y)  # pyright: ignore[reportCallIssue]
        return y


@pytest.mark.parametrize("root", [True, False])
@pytest.mark.parametrize("call", ["module", "function"])
@pytest.mark.parametrize("first", [3, 25])
def test_a_part_called_late_is_no_site_of_its_own(call: str, root: bool, first: int) -> None:
    torch.manual_seed(0)
    model = Flow(call, root)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with harness.Recorder(model, optimizer=optimizer, census_every=None) as recorder:
        for step in range(60):
            optimizer.zero_grad()
            model.loss(torch.randn(16, 2)).backward()
            optimizer.step()
            recorder.step()
            if step >= first and step % 5 == 0:
                model.sample(7)
        census = recorder.census()
    assert len(recorder.sites) == 3
    assert all(len(site.producers) == 1 and not site.guessed for site in recorder.sites)
    for place, (_, units) in enumerate(census.groupby("site")):
        n, missing = set(units.n).pop(), sum(model.calls[place]) - units.n.iloc[0]
        assert n <= sum(model.calls[place])
        assert missing in (
            (0, 7) if call == "module" else (0,)
        )  # the first call alone, which nobody expected


def test_an_activation_called_by_hand_is_not_guessed_at() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 8), nn.ReLU())
    with harness.Recorder(model, census_every=None) as recorder:
        for _ in range(20):
            model(torch.randn(4, 2)).sum().backward()
            with torch.no_grad():
                model[1](torch.randn(3, 8) @ torch.randn(8, 8))
            recorder.step()
        with pytest.warns(UserWarning, match="some calls are not counted: it was called outside"):
            census = recorder.census()
    assert set(census.site) == {"1"}
    assert set(census.n) == {80}
