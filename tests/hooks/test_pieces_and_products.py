"""Units of maxout layers and of products by `tensordot`: counts equal those of the model's own tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import harness

ROWS = 7
TENSORDOT: Any = torch.tensordot


class Net(nn.Module):
    """Keeps the pre-activation that one of `CALLS` makes."""

    def __init__(self, call: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        self.fc, self.conv = nn.Linear(6, 12), nn.Conv1d(2, 6, 1)
        self.cube, self.turned = nn.Parameter(torch.randn(2, 3, 5)), nn.Parameter(torch.randn(4, 6))
        self.call, self.z = call, torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        z = self.call(self, x) - 0.5
        self.z = z.detach()
        return F.relu(z)


#: Name → how it is made, the axes of its units, the layer.
CALLS: dict[str, tuple[Callable[[Net, Tensor], Tensor], tuple[int, ...], str]] = {
    "maxout": (lambda m, x: m.fc(x).view(-1, 4, 3).amax(-1), (1,), "fc"),
    "maxout of far pieces": (lambda m, x: m.fc(x).view(-1, 3, 4).max(1).values, (1,), "fc"),
    "smallest piece": (
        lambda m, x: m.fc(x).unflatten(-1, (4, 3)).amin(2, keepdim=True).squeeze(-1),
        (1,),
        "fc",
    ),
    "channels": (lambda m, x: m.conv(x.view(-1, 2, 3)).unflatten(1, (3, 2)).amax(2), (1,), "conv"),
    "minus the largest": (
        lambda m, x: (g := m.fc(x).view(-1, 4, 3)) - g.amax(-1, keepdim=True) + 1,
        (1, 2),
        "fc",
    ),
    "tensordot": (lambda m, x: TENSORDOT(x.view(-1, 2, 3), m.cube, dims=2), (1,), "cube"),
    "tensordot by axes": (lambda m, x: TENSORDOT(x.view(-1, 2, 3), m.cube, ([2], [1])), (2, 3), "cube"),
    "tensordot from the left": (lambda m, x: TENSORDOT(m.turned, x, ([1], [1])), (0,), "turned"),
}


#: Weights of each feature that another function spreads over new axes.
SPREADS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "addcmul": lambda x, w, b: torch.addcmul(b, w, x),
    "addcdiv": lambda x, w, b: torch.addcdiv(b, x, w),
    "lerp": lambda x, w, b: torch.lerp(b, w, x),
    "maximum": lambda x, w, b: torch.maximum(x, w) + b,
    "hypot": lambda x, w, b: torch.hypot(x, w) - 1,
}


@pytest.mark.parametrize("name", SPREADS)
def test_every_feature_has_units_of_its_own(name: str) -> None:
    class Embedding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.b = nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.randn(6, 4))

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(SPREADS[name](x[..., None], self.w, self.b))

    torch.manual_seed(0)
    model, x = Embedding(), torch.randn(ROWS, 6)
    units = harness.scan(model, x).units
    assert units["active"].tolist() == (model(x) > 0).sum(0).flatten().tolist()
    assert set(units["n"]) == {ROWS}


@pytest.mark.parametrize("name", CALLS)
def test_units_of_pieces_and_products(name: str) -> None:
    call, axes, layer = CALLS[name]
    torch.manual_seed(0)
    model = Net(call)
    with harness.Recorder(model, census_every=None) as recorder:
        model(torch.randn(ROWS, 6)).sum().backward()
        census = recorder.census()
    z = model.z.movedim(axes, tuple(range(-len(axes), 0))).flatten(-len(axes)).reshape(-1, len(census))
    assert census["active"].tolist() == (z > 0).sum(0).tolist()
    assert set(census["n"]) == {len(z)}
    (site,) = recorder.sites
    assert site.producers == (layer,)
    assert site.exact is (name == "tensordot from the left" or name == "tensordot")


class Parts(nn.Module):
    """One part happens to be called as wrappers call the model in them."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Sequential(nn.Linear(4, 5), nn.ReLU())
        self.act, self.head = nn.ReLU(), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.head(self.module(x)))


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "alone": lambda model: model,
    "data parallel": nn.DataParallel,
    "averaged": torch.optim.swa_utils.AveragedModel,
    "both": lambda model: torch.optim.swa_utils.AveragedModel(nn.DataParallel(model)),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_only_wrappers_leave_the_names(name: str) -> None:
    report = harness.scan(WRAPPERS[name](Parts()), torch.randn(ROWS, 4))
    assert [(site.name, site.producers) for site in report.plan.sites] == [
        ("module.1", ("module.0",)),
        ("act", ("head",)),
    ]
