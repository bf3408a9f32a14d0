"""Activations of somebody's own, a network around them, and a count by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import harness

UNITS, ROWS, STEPS = 8, 16, 20


Truth = Callable[[Any, Tensor], Tensor]  # (activation, z) → which gates are open


class Steps(torch.autograd.Function):
    """JumpReLU with a learned threshold, as sparse autoencoders have it."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, threshold: Tensor, width: float) -> Tensor:
        ctx.save_for_backward(z, threshold)
        ctx.width = width
        return z * (z > threshold)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        z, threshold = ctx.saved_tensors
        near = (z - threshold).abs() < ctx.width / 2
        return gradients[0] * (z > threshold), -(threshold / ctx.width * near * gradients[0]).sum(0), None


class NewStyle(torch.autograd.Function):
    """A function whose forward has no context."""

    @staticmethod
    def forward(z: Tensor) -> Tensor:
        return z * (z > 0.25)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (z,) = ctx.saved_tensors
        return gradients[0] * (z > 0.25)


class JumpReLU(nn.Module):
    """Its threshold is learned."""

    def __init__(self) -> None:
        super().__init__()
        self.log_threshold = nn.Parameter(torch.linspace(-3, 0.3, UNITS))

    def forward(self, z: Tensor) -> Tensor:
        return Steps.apply(z, self.log_threshold.exp(), 0.5)  # type: ignore[return-value]


class TopK(nn.Module):
    """Hands on the k largest of each row."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def forward(self, z: Tensor) -> Tensor:
        values, places = z.topk(self.k, -1)
        return torch.zeros_like(z).scatter(-1, places, values)


class Shifted(nn.Module):
    """ReLU with its kink elsewhere; what it calls inside is its own."""

    def forward(self, z: Tensor) -> Tensor:
        return F.relu(z - 0.3) + 0.3


def selected(z: Tensor, module: Any) -> Tensor:
    return torch.zeros_like(z, dtype=torch.bool).scatter(-1, z.topk(module.k, -1).indices, True)


def shrink(z: Tensor, by: float = 0.2) -> Tensor:
    return F.relu(z - by)


@torch.library.custom_op("harness_tests::jump", mutates_args=())
def jump(z: Tensor) -> Tensor:
    """A custom operator."""
    return z * (z > 0.1)


def _jump_backward(ctx: Any, gradient: Tensor) -> Tensor:
    return gradient


jump.register_autograd(_jump_backward)


class Net(nn.Module):
    """One hidden layer with a dead unit; `call` is the activation."""

    def __init__(self, call: Callable[..., Any], *, apart: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.head = nn.Linear(3, UNITS), nn.Linear(UNITS, 1)
        self.act = call if isinstance(call, nn.Module) else None
        self.call: Callable[..., Any] = call
        self.checkpointed = apart
        nn.init.constant_(self.fc.bias[:1].detach(), -50.0)

    def hidden(self, x: Tensor) -> Tensor:
        z = self.fc(x)
        return self.act(z) if self.act is not None else self.call(z)

    def forward(self, x: Tensor) -> Tensor:
        h: Any = checkpoint(self.hidden, x, use_reentrant=False) if self.checkpointed else self.hidden(x)
        return self.head(h)


def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(ROWS, 3, generator=generator) for _ in range(STEPS)]


def check(model: Net, truth: Truth, site: str) -> None:
    """Scan and training both count what `truth` says."""
    x = torch.cat(batches())
    with torch.no_grad():
        expected = truth(model.act, model.fc(x)).sum(0)
    report = harness.scan(model, x)
    assert set(report.units.site) == {site}
    assert report.units.active.tolist() == expected.tolist()
    assert set(report.units.n) == {ROWS * STEPS}
    assert report.units.state[0] == "dead"
    assert [(s.name, s.producers) for s in report.plan.sites] == [(site, ("fc",))]
    optimizer, counted = torch.optim.SGD(model.parameters(), lr=0.01), torch.zeros(UNITS, dtype=torch.int64)
    with harness.Recorder(model, optimizer=optimizer, census_every=None) as recorder:
        for x in batches():
            with torch.no_grad():
                counted += truth(model.act, F.linear(x, model.fc.weight, model.fc.bias)).sum(0)
            model(x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            recorder.step()
        census = recorder.census()
    assert set(census.site) == {site}
    assert census.active.tolist() == counted.tolist()
    assert set(census.n) == {ROWS * STEPS}
    assert census.grad_rms.notna().all()
    assert census.state[0] == "dead"


def trained(model: Net) -> list[Tensor]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    torch.manual_seed(3)
    for _ in range(STEPS):
        noisy = torch.randn(ROWS, 3) + F.dropout(torch.ones(ROWS, 3))
        model(noisy).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return [p.detach().clone() for p in model.parameters()]
