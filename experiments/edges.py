"""Where half of the units die: the critical learning rate of one network, by bisection, and its sharpness."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from experiments.claims.dead_units_cost import hidden
from harness.config import RunSpec
from harness.training.data import Dataset, load
from harness.training.initialisation import initialise
from harness.training.models import build
from harness.training.randomness import stream

Loss = Callable[[Tensor, Tensor], Tensor]


def squared(out: Tensor, y: Tensor) -> Tensor:
    """Half the squared distance from the classes as unit vectors: mean over the inputs."""
    return 0.5 * (out - functional.one_hot(y, out.shape[1])).square().sum(1).mean()


@torch.no_grad()
def closed(model: nn.Module, x: Tensor) -> Tensor:
    """Which hidden units of an MLP are closed on all inputs x (N, features): (units,) bool."""
    found, h = [], x
    for layer in hidden(model):
        h = layer(h).relu()
        found.append((h > 0).sum(0) == 0)
    return torch.cat(found)


class Setting:
    """One network and its training inputs, multiplied by a number.

    Args:
        spec: the run; its learning rate is not read.
        scale: every input is multiplied by it.
        loss: of outputs and classes.

    Attributes:
        x: (N, features), all training inputs of an epoch; y: (N,) their classes.
    """

    def __init__(self, spec: RunSpec, scale: float, loss: Loss) -> None:
        self._spec, self._scale, self._loss = spec, scale, loss
        self._data: Dataset = load(spec, torch.device("cpu"), torch.float32)
        batches = [self._data.batch(0, k) for k in range(self._data.steps_per_epoch)]
        self.x = torch.cat([x for x, _ in batches]).flatten(1) * scale
        self.y = torch.cat([y for _, y in batches])

    def network(self) -> nn.Module:
        """The network as it begins: the same at every call."""
        model = build(self._spec, self._data.shape, self._data.classes)
        initialise(model, self._spec)
        return model

    def dead(self, lr: float, steps: int) -> float:
        """Share of the hidden units that are closed on all training inputs after so many steps of plain SGD.

        A training that diverges counts as wholly dead: it is past the edge.
        """
        model = self.network()
        parameters = list(model.parameters())
        for step in range(steps):
            x, y = self._data.batch(*divmod(step, self._data.steps_per_epoch))
            loss = self._loss(model(x * self._scale), y)
            gradients = torch.autograd.grad(loss, parameters)
            if not math.isfinite(loss.item()):
                return 1.0
            with torch.no_grad():
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.sub_(gradient, alpha=lr)
        return float(closed(model, self.x).float().mean())

    def sharpness(self, iterations: int) -> float:
        """Greatest eigenvalue of the Hessian of the training loss at the beginning, by power iteration."""
        model = self.network()
        parameters = list(model.parameters())
        loss = self._loss(model(self.x), self.y)
        gradient = _flat(torch.autograd.grad(loss, parameters, create_graph=True))
        v = torch.randn(len(gradient), generator=stream(self._spec.seed, "sharpness"))
        value = 0.0
        for _ in range(iterations):
            v = v / v.norm()
            product = _flat(torch.autograd.grad(gradient @ v, parameters, retain_graph=True))
            value, v = float(v @ product), product
        return value


def bisect(dead: Callable[[float], float], low: float, high: float, halvings: int) -> float:
    """The learning rate at which the dead share crosses one half, on a logarithmic scale.

    Args:
        dead: learning rate → dead share.
        low: where more than half of the units are to be alive.
        high: where at least half are to be dead.
        halvings: of the interval.

    Returns:
        The geometric middle of the last interval; NaN if the first does not hold the edge.

    Example:
        >>> round(bisect(lambda lr: float(lr > 0.3), 0.01, 10.0, 12), 2)
        0.3
    """
    if dead(low) >= 0.5 or dead(high) < 0.5:
        return math.nan
    for _ in range(halvings):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if dead(middle) >= 0.5 else (middle, high)
    return math.sqrt(low * high)


def _flat(tensors: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])
