"""Networks whose wiring is not the order of their modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Functional(nn.Module):
    """Convolutions, pooling, a flattening and two heads, all as functions; modules registered backwards."""

    def __init__(self) -> None:
        super().__init__()
        self.head_b, self.head_a = nn.Linear(7, 3), nn.Linear(7, 2)
        self.hidden = nn.Linear(6 * 4, 7)
        self.second, self.norm, self.first = nn.Conv2d(5, 6, 3), nn.BatchNorm2d(5), nn.Conv2d(1, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(torch.relu(self.norm(self.first(x))), 2)
        x = F.adaptive_avg_pool2d(F.relu(self.second(x)), 2).view(x.size(0), -1)
        x = F.dropout(self.hidden(x).clamp(min=0), 0.3, self.training)
        return torch.cat((self.head_a(x), self.head_b(x)), 1)


class Tokens(nn.Module):
    """Pre-norm blocks on tokens, with a transposition on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(6), nn.Linear(6, 12), nn.Linear(12, 6)
        self.mix, self.back = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.down(F.relu(self.up(self.norm(x))))
        turned = self.back(F.relu(self.mix(x.transpose(1, 2))))
        return (x + turned.transpose(1, 2)).mean(1)


def mlp() -> Any:
    return nn.Sequential(
        nn.Linear(9, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(inplace=True), nn.Linear(8, 3)
    )


def normed() -> nn.Module:
    first = [nn.Linear(9, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2)]
    return nn.Sequential(*first, nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU6(), nn.Linear(8, 3))


def plain_conv() -> nn.Module:
    body = [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(6 * 9, 5), nn.ELU(), nn.Linear(5, 2))


def sequence() -> nn.Module:
    body = [nn.Conv1d(2, 4, 3), nn.ReLU(), nn.AvgPool1d(2), nn.Conv1d(4, 5, 3), nn.ReLU()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(5, 2))


#: name → (network, shape of one input, sites that can be treated)
NETS = {
    "mlp": (mlp, (9,), ["1", "3"]),
    "normed": (normed, (9,), ["2", "6"]),
    "plain_conv": (plain_conv, (1, 8, 8), ["1", "3", "7"]),
    "sequence": (sequence, (2, 14), ["1", "4"]),
    "functional": (Functional, (1, 12, 12), [":relu", ":relu#1", ":clamp"]),
    "tokens": (Tokens, (4, 6), [":relu", ":relu#1"]),
}


def trained(
    name: str, seed: int, optimizer: Callable[..., torch.optim.Optimizer], **options: float
) -> tuple[Any, Any, Tensor]:
    """A network some of whose units are dead, its optimizer after a few steps, and inputs."""
    torch.manual_seed(seed)
    made, shape, _ = NETS[name]
    model, x = made(), torch.randn(12, *shape)
    with torch.no_grad():
        for module in model.modules():
            bias = getattr(module, "bias", None)
            if isinstance(bias, Tensor):
                bias[torch.rand(len(bias)) < 0.4] = -50.0
                bias[0] = -50.0
    stepper = optimizer(model.parameters(), lr=1e-3, **options)
    for _ in range(3):
        model(x).square().mean().backward()
        stepper.step()
        stepper.zero_grad()
    return model, stepper, x
