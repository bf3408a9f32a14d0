"""A forward that a backward runs again may take derivatives of its own: they are no gradients of the loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import harness


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.act, self.two = nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.act(self.one(x)))


class Adjoint(torch.autograd.Function):
    """Keeps its input alone, and runs the block again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, block: Block, derivative: str, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        ctx.block, ctx.derivative = block, derivative
        return block(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        with torch.enable_grad():
            x = ctx.saved_tensors[0].detach().requires_grad_()
            y = ctx.block(x)
            if ctx.derivative == "batched":
                basis = torch.eye(4).expand(len(x), 4, 4).movedim(1, 0)
                torch.autograd.grad(y, x, basis, create_graph=True, is_grads_batched=True)
            elif ctx.derivative == "single":
                torch.autograd.grad(y, x, torch.randn_like(y), create_graph=True)
            own = tuple(ctx.block.parameters())
        found = torch.autograd.grad(y, (x, *own), gradients[0])
        return found[0], None, None, *found[1:]


class Net(nn.Module):
    def __init__(self, derivative: str | None) -> None:
        super().__init__()
        self.block, self.derivative = Block(), derivative

    def forward(self, x: Tensor) -> Tensor:
        if self.derivative is None:
            return self.block(x)
        return Adjoint.apply(x, self.block, self.derivative, *self.block.parameters())  # pyright: ignore


def census(derivative: str | None) -> Any:
    torch.manual_seed(0)
    model, x = Net(derivative), torch.randn(16, 4)
    with harness.Recorder(model, census_every=None) as recorder:
        for _ in range(3):
            model(x).square().mean().backward()
            model.zero_grad()
            recorder.step()
        return recorder.census()[["unit", "n", "active", "grad_rms"]]


@pytest.mark.parametrize("derivative", ["none", "single", "batched"])
def test_gradients_are_those_of_the_loss(derivative: str) -> None:
    got, want = census(derivative), census(None)
    assert got.drop(columns="grad_rms").equals(want.drop(columns="grad_rms"))
    assert got.grad_rms.to_numpy() == pytest.approx(want.grad_rms.to_numpy(), rel=1e-5)
