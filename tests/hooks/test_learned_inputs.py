"""Layers whose input is learned: queries, constant images, the codes of hypernetworks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import harness


class Net(nn.Module):
    """Keeps the pre-activation that one of `CALLS` makes."""

    def __init__(self, call: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        self.fc, self.deep, self.up = nn.Linear(6, 5), nn.Linear(5, 5), nn.ConvTranspose2d(3, 5, 2)
        self.norm, self.table = nn.LayerNorm(5), nn.Embedding(4, 6)
        self.query, self.code, self.image = (
            nn.Parameter(torch.randn(shape)) for shape in ((4, 6), (6,), (1, 3, 2, 2))
        )
        self.make = nn.Linear(6, 15)
        self.call, self.z = call, torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        z = self.call(self, x)
        self.z = z.detach()
        return F.relu(z)


#: Name → how it is made, the axis of its units, the layer.
CALLS: dict[str, tuple[Callable[[Net, Tensor], Tensor], int, str]] = {
    "queries": (lambda m, x: m.fc(m.query), -1, "fc"),
    "rows of a table": (lambda m, x: m.fc(m.table.weight), -1, "fc"),
    "a code": (lambda m, x: m.fc(m.code), -1, "fc"),
    "an image": (lambda m, x: m.up(m.image), 1, "up"),
    "queries, normed": (lambda m, x: m.norm(m.fc(m.query) * 2), -1, "norm"),
    "queries, twice": (lambda m, x: m.deep(F.relu(m.fc(m.query)).expand(2, -1, -1)), -1, "deep"),
    "weights of a hypernetwork": (lambda m, x: F.linear(x, m.make(m.code).view(5, 3)), -1, "make"),
    "positive weights of one": (lambda m, x: F.linear(x, m.make(m.code).exp().view(5, 3)), -1, "make"),
}


@pytest.mark.parametrize("name", CALLS)
def test_units_of_learned_inputs(name: str) -> None:
    call, axis, layer = CALLS[name]
    torch.manual_seed(0)
    model = Net(call)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with harness.Recorder(model, optimizer=optimizer, census_every=1) as recorder:
        model(torch.randn(7, 3)).square().sum().backward()
        optimizer.step()
        recorder.step()
    site = recorder.sites[-1]
    census = recorder.census()
    rows = census[census.site == site.name]
    z = model.z.movedim(axis, -1).reshape(-1, 5)
    assert rows["active"].tolist() == (z > 0).sum(0).tolist()
    assert set(rows["n"]) == {len(z)}
    assert site.producers == (layer,)
    assert not site.guessed
    owner = getattr(model, layer)
    if name in ("queries", "rows of a table", "a code", "queries, twice"):
        norms = torch.cat([owner.weight.grad, owner.bias.grad[:, None]], 1).norm(dim=1)
        assert rows["grad_norm"].tolist() == pytest.approx(norms.tolist(), rel=1e-5)
