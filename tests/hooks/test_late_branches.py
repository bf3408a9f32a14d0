"""A branch that begins late, and then comes in turn with others: at most its first inputs are not counted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev

import harness

INPUTS, START, STEPS = 6, 20, 120


class Branches(nn.Module):
    """One activation behind either of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.act, self.head = nn.Linear(4, 6), nn.Linear(4, 5), nn.ReLU(), nn.Linear(1, 2)
        self.second = False

    def forward(self, x: Tensor) -> Tensor:
        layer = self.two if self.second else self.one
        return self.head(self.act(layer(x)).mean(-1, keepdim=True))


def turns(every: int) -> Iterator[bool]:
    """Whether a forward takes the second branch: from `START` on, one in `every`."""
    return (k >= START and k % every == 0 for k in range(STEPS))


@pytest.mark.parametrize("every", [1, 2, 3, 5, 8])
def test_a_branch_that_takes_turns_loses_its_first_inputs_alone(every: int) -> None:
    torch.manual_seed(0)
    model = Branches()
    with harness.Recorder(model, census_every=None) as recorder:
        for model.second in turns(every):
            model(torch.randn(INPUTS, 4)).sum().backward()
            recorder.step()
    n = recorder.census().groupby("site")["n"].max()
    second = sum(turns(every))
    assert n.to_dict() == {"act": (STEPS - second) * INPUTS, "act#1": (second - 1) * INPUTS}


def test_new_layers_one_after_the_other_lose_little() -> None:
    """Each is unknown at first, and the more often that happens, the longer forwards are traced."""

    class Growing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers, self.act, self.calls = nn.ModuleList([nn.Linear(4, 6)]), nn.ReLU(), 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            again = self.calls >= START and self.calls % 9 == 0  # the first time, 8 forwards are traced
            return self.act(self.layers[self.calls // 9 if again else 0](x))

    torch.manual_seed(0)
    model = Growing()
    for _ in range(30):
        model.layers.append(nn.Linear(4, 6))
    with harness.Recorder(model, census_every=None) as recorder:
        for _ in range(250):
            model(torch.randn(INPUTS, 4)).sum().backward()
            recorder.step()
        counted = recorder.census().drop_duplicates("site")["n"].sum()
    assert 240 * INPUTS < counted <= 250 * INPUTS


@pytest.mark.parametrize("before", [False, True])
def test_functional_calls_between_the_steps_are_counted(before: bool) -> None:
    torch.manual_seed(0)
    first = nn.Linear(4, 6)
    with torch.no_grad():
        first.bias[1] = -100.0
    model = nn.Sequential(first, nn.ReLU(), nn.Linear(6, 2))

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(model, parameters, (x,)).square().mean()

    with harness.Recorder(model, census_every=10) as recorder:
        for _ in range(20):
            x = torch.randn(INPUTS, 4)
            if before:
                jacrev(lambda x: model(x).sum())(x)
            model(x).square().mean().backward()
            if not before:
                grad(loss)({name: p.detach() for name, p in model.named_parameters()}, x)
            recorder.step()
    census = recorder.history()
    assert census["n"].tolist() == [2 * 10 * INPUTS] * 12
    assert (census["state"] == "dead").tolist() == [False, True, False, False, False, False] * 2
