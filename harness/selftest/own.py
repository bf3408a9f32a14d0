"""Declared activations are counted as declared: JumpReLU, TopK, an autograd.Function, a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from harness.activations.declare import declare_activation
from harness.selftest.case import Case, kill, sequential
from harness.selftest.truth import Keep, site, through

THRESHOLDS = torch.linspace(-0.2, 0.3, 6)


@declare_activation(threshold=lambda module: module.threshold)
class JumpReLU(nn.Module):
    """Passes values above a threshold per unit."""

    threshold: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("threshold", THRESHOLDS.clone())

    def forward(self, z: Tensor) -> Tensor:
        return z * (z > self.threshold)


def jump(z: Tensor) -> Tensor:
    return z * (z > THRESHOLDS.to(z))


def selected(z: Tensor, *_: Any) -> Tensor:
    return z >= z.topk(2, -1).values[..., -1:]


@declare_activation(open=selected)
class TopK(nn.Module):
    """Passes the two largest values of each input."""

    def forward(self, z: Tensor) -> Tensor:
        return z * selected(z)


@declare_activation(threshold=0.1)
class Step(torch.autograd.Function):
    """ReLU with a threshold and a custom backward."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return z * (z > 0.1)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (z,) = ctx.saved_tensors
        return gradients[0] * (z > 0.1)


@declare_activation(threshold=-0.1)
def shifted(z: Tensor) -> Tensor:
    """A function whose inner calls do not count separately."""
    return torch.relu(z + 0.1) - 0.1


class Calls(nn.Module):
    """One hidden layer and a declared function."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.fc, self.head, self.function = nn.Linear(6, 6), nn.Linear(6, 2), function
        kill(self.fc, 3)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        return self.head(self.function(keep(f":{NAMES[self.function]}", self.fc(x))))


NAMES: dict[Any, str] = {shifted: "shifted", Step.apply: "Step"}


def layers(act: nn.Module) -> nn.Sequential:
    """One hidden layer and a declared module; the bias keeps the dead unit from ever being selected."""
    first = nn.Linear(6, 6)
    kill(first, 3)
    nn.init.constant_(first.bias[3:4].detach(), -50.0)
    return nn.Sequential(first, act, nn.Linear(6, 2))


def case(make: Callable[[], nn.Module], name: str, function: Callable[[Tensor], Any], **options: Any) -> Case:
    producer = "fc" if name.startswith(":") else "0"
    true = site(name, producer, 6, 3, function=function)
    return Case(make, (true,), **options)


CASES: dict[str, Case] = {
    "declared jumprelu": case(lambda: layers(JumpReLU()), "1", jump, reference=sequential({1: "1"})),
    "declared topk": case(
        lambda: layers(TopK()), "1", lambda z: z * selected(z.detach()), reference=sequential({1: "1"})
    ),
    "declared autograd function": case(lambda: Calls(Step.apply), ":Step", lambda z: z * (z > 0.1)),
    "declared function": case(lambda: Calls(shifted), ":shifted", lambda z: z * (z > -0.1)),
}
