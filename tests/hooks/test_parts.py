"""Models that are called through methods of their own: every part that is called by itself counts."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import harness


def mlp(*sizes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers)


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.out = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.fc(x)))


class Agent(nn.Module):
    """Containers, a module that calls a function, a shared activation called by hand; no own forward."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.inner, self.head, self.act = mlp(4, 6), Inner(), nn.Linear(6, 3), nn.ReLU()

    def features(self, x: Tensor) -> Tensor:
        return self.inner(self.body(x))

    def values(self, x: Tensor) -> Tensor:
        return self.act(self.head(self.features(x)))

    def truth(self, x: Tensor) -> dict[str, Tensor]:
        z1 = self.body[0](x)
        z2 = self.inner.fc(z1.relu())
        z3 = self.head(self.inner.out(z2.relu()))
        return {"body.1": z1, "inner:relu": z2, "act": z3}


class Encoder(nn.Module):
    """Its forward calls parts that others call by themselves, too."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.tail = mlp(4, 6), mlp(6, 5)

    def encode(self, x: Tensor) -> Tensor:
        return self.body(x)

    def decode(self, h: Tensor) -> Tensor:
        return self.tail(h)

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))

    def truth(self, x: Tensor) -> dict[str, Tensor]:
        z1 = self.body[0](x)
        return {"body.1": z1, "tail.1": self.tail[0](z1.relu())}


def by_methods(model: Any, x: Tensor) -> Tensor:
    return model.values(x)


def by_forward(model: Any, x: Tensor) -> Tensor:
    return model.forward(x)


def by_parts(model: Any, x: Tensor) -> Tensor:
    return model.decode(model.encode(x))


def by_turns() -> Callable[[Any, Tensor], Tensor]:
    ways = iter([lambda m, x: m(x), by_forward, by_parts] * 100)
    return lambda model, x: next(ways)(model, x)


def checkpointed(model: Any, x: Tensor) -> Tensor:
    return model.decode(checkpoint(model.body, x, use_reentrant=False))


CASES: dict[str, tuple[Callable[[], Any], Callable[[], Callable[[Any, Tensor], Tensor]]]] = {
    "its own methods": (Agent, lambda: by_methods),
    "forward() itself": (Encoder, lambda: by_forward),
    "encode and decode": (Encoder, lambda: by_parts),
    "by turns": (Encoder, by_turns),
    "a checkpointed part": (Encoder, lambda: checkpointed),
}


@pytest.fixture(params=[True, False], ids=["grad", "no grad"])
def grad(request: pytest.FixtureRequest) -> Iterator[bool]:
    with torch.set_grad_enabled(request.param):
        yield request.param


@pytest.mark.parametrize("forwards", [1, 5, 40])
@pytest.mark.parametrize("case", list(CASES))
def test_parts_are_counted(case: str, forwards: int, grad: bool) -> None:
    torch.manual_seed(0)
    make, way = CASES[case]
    model, call = make(), way()
    seen: dict[str, list[Tensor]] = {}
    gradient = torch.zeros(6, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with harness.Recorder(model, optimizer=optimizer, census_every=None) as recorder:
        for _ in range(forwards):
            x = torch.randn(5, 4)
            with torch.enable_grad():
                truth = copy.deepcopy(model).truth(x)  # without hooks
            for name, z in truth.items():
                seen.setdefault(name, []).append(z.detach())
            loss = call(model, x).square().sum()
            if grad:
                z = truth["body.1"]
                last(truth).relu().square().sum().backward(inputs=[z])
                gradient += z.grad.double().square().sum(0)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            recorder.step()
        census = recorder.census().set_index("site")
    assert set(census.index) == set(seen)
    for name, parts in seen.items():
        z, rows = torch.cat(parts), census.loc[name]
        assert set(rows.n) == {len(z)}, name
        assert rows.active.tolist() == (z > 0).sum(0).tolist(), name
    if grad:
        rms = (gradient / (5 * forwards)).sqrt()
        torch.testing.assert_close(
            torch.tensor(census.loc["body.1"].grad_rms.to_numpy()), rms, rtol=1e-4, atol=0
        )
        assert census.grad_norm.notna().all()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def last(truth: dict[str, Tensor]) -> Tensor:
    return list(truth.values())[-1]


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_what_is_called_in_the_other_mode_alone_is_said(mode: str) -> None:
    model = Agent().train(mode != "train")
    recorder = harness.Recorder(model, observe=mode)
    recorder.__enter__()
    for _ in range(3):
        model.values(torch.randn(2, 4))
    other = "evaluation" if mode == "train" else "training"
    with pytest.warns(UserWarning, match=f"it was called in {other} mode alone"):
        recorder.__exit__(None, None, None)
    assert set(recorder.census().n) == {0}


@pytest.mark.parametrize("start", [1, 12, 40])
def test_parts_that_come_late(start: int) -> None:
    torch.manual_seed(0)
    model = Encoder()
    n = 0
    with harness.Recorder(model, census_every=None) as recorder:
        for k in range(50):
            x = torch.randn(3, 4)
            n += 3
            (by_parts(model, x) if k >= start else model(x)).sum().backward()
            recorder.step()
        census = recorder.census()
    assert set(census.n) == {n}
    assert set(census.site) == {"body.1", "tail.1"}
