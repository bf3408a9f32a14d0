"""Continual backprop against its arithmetic, step by step."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from harness.remedies import ContinualBackprop
from harness.remedies.utility import Utilities


@settings(max_examples=40, deadline=None)
@given(
    rate=st.floats(1e-4, 1),
    maturity=st.integers(0, 30),
    units=st.integers(1, 40),
    seed=st.integers(0, 10**6),
)
def test_as_many_are_replaced_as_the_accumulator_says(
    rate: float, maturity: int, units: int, seed: int
) -> None:
    torch.manual_seed(seed)
    utilities, ages, owed, replaced, expected = Utilities(1, 1, units), [0] * units, 0.0, 0, 0
    numbers = [torch.tensor([x], dtype=torch.float64) for x in (rate, maturity, 0.9)]
    for _ in range(120):
        ages = [age + 1 for age in ages]
        mature = [u for u, age in enumerate(ages) if age > maturity]
        owed += rate * len(mature)
        expected += int(owed)
        owed -= int(owed)
        utilities.update(torch.rand(1, units), torch.rand(1, 1, units), numbers[2])
        chosen = utilities.choose(*numbers)[0].tolist()
        assert set(chosen) <= set(mature)
        utilities.forget(0, torch.tensor(chosen, dtype=torch.int64))
        for u in chosen:
            ages[u] = 0
        replaced += len(chosen)
        assert replaced == expected
        assert utilities.age[0].tolist() == ages


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_a_training_against_an_oracle(kind: Callable[..., torch.optim.Optimizer]) -> None:
    torch.manual_seed(0)
    sizes, eta, rate, maturity = (5, 8, 6, 3), 0.8, 0.03, 4
    layers = [nn.Linear(a, b).double() for a, b in pairwise(sizes)]
    model = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.Tanh(), layers[2])
    optimizer = kind(model.parameters(), lr=0.05)
    x0 = torch.randn(7, 5, dtype=torch.float64)
    own, draws = (torch.Generator().manual_seed(1) for _ in range(2))
    cure = ContinualBackprop(
        model,
        optimizer,
        x0,
        rate=rate,
        maturity=maturity,
        decay=eta,
        generator=torch.Generator().manual_seed(1),
    )
    draws = torch.Generator().manual_seed(1)
    utility = [[0.0] * 8, [0.0] * 6]
    mean = [[0.0] * 8, [0.0] * 6]
    age = [[0] * 8, [0] * 6]
    owed, total = [0.0, 0.0], 0
    for _ in range(60):
        x = torch.randn(7, 5, dtype=torch.float64)
        with torch.no_grad():
            h1 = F.relu(layers[0](x))
            h2 = torch.tanh(layers[1](h1))
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        want = {n: p.detach().clone() for n, p in model.named_parameters()}
        moments = {n: _moments(optimizer, p) for n, p in model.named_parameters()}
        due: list[list[int]] = []
        for k, h in enumerate((h1, h2)):
            out = want[f"{2 * k + 2}.weight"]
            for u in range(h.shape[1]):
                age[k][u] += 1
                new = float(h[:, u].abs().mean()) * float(out[:, u].abs().sum())
                utility[k][u] = eta * utility[k][u] + (1 - eta) * new
                mean[k][u] = eta * mean[k][u] + (1 - eta) * float(h[:, u].mean())
            mature = [u for u in range(h.shape[1]) if age[k][u] > maturity]
            owed[k] += rate * len(mature)
            n = int(owed[k])
            owed[k] -= n
            due.append(sorted(sorted(mature, key=lambda u: utility[k][u] / (1 - eta ** age[k][u]))[:n]))
        for k, units in enumerate(due):
            if not units:
                continue
            own, out = f"{2 * k}", f"{2 * k + 2}"
            fresh = torch.empty(want[f"{own}.weight"].shape)
            nn.init.kaiming_uniform_(fresh, a=5**0.5, generator=draws)
            for u in units:
                want[f"{own}.weight"][u], want[f"{own}.bias"][u] = fresh[u].double(), 0
                given_on_average = mean[k][u] / (1 - eta ** age[k][u])
                want[f"{out}.bias"] += want[f"{out}.weight"][:, u] * given_on_average
                want[f"{out}.weight"][:, u] = 0
                for m in moments[f"{own}.weight"] + moments[f"{own}.bias"]:
                    m[u] = 0
                for m in moments[f"{out}.weight"]:
                    m[:, u] = 0
                utility[k][u], mean[k][u], age[k][u] = 0.0, 0.0, 0
        acts = cure.step()
        assert [(act.site, act.units) for act in acts] == [
            (site, len(units)) for site, units in zip(("1", "3"), due, strict=True) if units
        ]
        total += sum(act.units for act in acts)
        for name, p in model.named_parameters():
            torch.testing.assert_close(p.detach(), want[name], rtol=1e-12, atol=1e-14)
            for one, two in zip(_moments(optimizer, p), moments[name], strict=True):
                assert torch.equal(one, two)
    assert total > 10


def test_what_it_remembers_can_be_carried_over() -> None:
    def made() -> tuple[nn.Module, ContinualBackprop]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24, 2))
        return model, ContinualBackprop(model, None, torch.zeros(1, 1, 6, 6), rate=0.1, maturity=2, init=ones)

    one, cure = made()
    xs = torch.randn(9, 4, 1, 6, 6)
    for x in xs[:5]:
        one(x)
        cure.step()
    two, other = made()
    two.load_state_dict(one.state_dict())
    other.load_state_dict(cure.state_dict())
    acts = []
    for model, one_cure in ((one, cure), (two, other)):
        acts.append([])
        for x in xs[5:]:
            model(x)
            acts[-1].append(one_cure.step())
    assert acts[0] == acts[1] != [[], [], [], []]
    assert all(torch.equal(p, q) for p, q in zip(one.parameters(), two.parameters(), strict=True))
    other.close()
    assert not any(m._forward_pre_hooks for m in two.modules())


def test_errors() -> None:
    model, x = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)), torch.zeros(1, 2)
    cases: list[tuple[Any, str]] = [
        ({"rate": 0}, "rate"),
        ({"maturity": -1}, "maturity"),
        ({"decay": 1}, "decay"),
    ]
    for options, words in cases:
        with pytest.raises(ValueError, match=f"{words}: expected"):
            ContinualBackprop(model, None, x, **options)
    with pytest.raises(RuntimeError, match="without a forward"):
        ContinualBackprop(model, None, x).step()


def ones(weight: torch.Tensor, generator: torch.Generator | None) -> None:
    nn.init.ones_(weight)


def _moments(optimizer: torch.optim.Optimizer, p: torch.Tensor) -> list[torch.Tensor]:
    return [v.clone() for k, v in optimizer.state[p].items() if k != "step"]
