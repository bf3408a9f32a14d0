"""The optimizer of a stack: one kind, with separate hyperparameters for every member."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from harness.config import RunSpec
from harness.config import schema as s
from harness.training.optimisation import factor
from harness.training.stacked import updates
from harness.training.stacked.parameters import Parameter


def learning_rates(specs: Sequence[RunSpec], total: int) -> np.ndarray:
    """Return the learning rate of each update and member, (total, K) float64.

    Example:
        >>> from harness.config import compose
        >>> learning_rates([compose(["schedule=warmup", "schedule.steps=2", "optim.lr=1"])], 3)[:, 0]
        array([0.5, 1. , 1. ])
    """
    factors: dict[str, np.ndarray] = {}
    for spec in specs:
        if repr(spec.schedule) not in factors:
            course = [factor(spec.schedule, step, total) for step in range(total)]
            factors[repr(spec.schedule)] = np.array(course, float)
    return np.stack([spec.optim.lr * factors[repr(spec.schedule)] for spec in specs], 1)


class Optimizer:
    """Updates all parameters of a stack as `torch.optim` would update those of each member.

    Args:
        specs: the members, in the order of the stack.
        parameters: parameters of the stack; missing moments are created.
    """

    def __init__(self, specs: Sequence[RunSpec], parameters: Sequence[Parameter]) -> None:
        kind = specs[0].optim
        self._adam = isinstance(kind, s.Adam)
        self._momentum = isinstance(kind, s.Momentum)
        self._decoupled = kind.name == "adamw"
        names = ["weight_decay"]
        rows = [[spec.optim.weight_decay for spec in specs]]
        if self._adam:
            names += ["beta1", "beta2"]
            rows += [[_betas(spec)[k] for spec in specs] for k in (0, 1)]
        if self._momentum:
            names += ["momentum", "nesterov"]
            rows += [[float(getattr(spec.optim, name)) for spec in specs] for name in names[1:]]
        self._hyper = dict(zip(names, (np.array(row, float) for row in rows), strict=True))
        clips = [spec.train.clip_grad for spec in specs]
        self._clips = np.array([np.inf if c is None else c for c in clips])
        self._clipping = any(c is not None for c in clips)
        parameters = [p for p in parameters if not p.fixed]
        self._parameters = parameters
        wanted = 2 if self._adam else int(self._momentum)
        for p in parameters:
            if len(p.moments) != wanted:
                p.moments = [torch.zeros_like(p.value) for _ in range(wanted)]
        self._ones = np.ones(len(specs))
        self._flat: list[tuple[int, int, list[Any], np.ndarray]] = [
            (p.members.start, p.members.stop, [_flat(t) for t in (p.value, p.grad, *p.moments)], p.since)
            for p in parameters
        ]

    def scales(self) -> np.ndarray:
        """Factors (K,) by which clipping scales the gradients of each member."""
        if not self._clipping:
            return self._ones
        norms = torch.zeros(len(self._clips), len(self._parameters), dtype=self._parameters[0].value.dtype)
        for column, p in enumerate(self._parameters):
            rows = slice(p.members.start, p.members.stop)
            norms[rows, column] = torch.linalg.vector_norm(p.grad.flatten(1), dim=1)
        whole = torch.linalg.vector_norm(norms, dim=1)
        clipped = torch.from_numpy(self._clips)
        held = (clipped.to(whole.dtype) / (whole + 1e-6)).clamp(max=1.0)
        return torch.where(clipped.isinf(), 1.0, held.double()).numpy()

    def step(self, lr: np.ndarray, step: int, scales: np.ndarray) -> None:
        """Perform update number `step` (from 1) with learning rates lr and gradient factors scales (K,)."""
        hyper = self._hyper
        for start, stop, arrays, since in self._flat:
            scale, rate, decay = scales[start:stop], lr[start:stop], hyper["weight_decay"][start:stop]
            if self._adam:
                betas = hyper["beta1"][start:stop], hyper["beta2"][start:stop]
                updates.adam(*arrays, scale, rate, decay, *betas, self._decoupled, step - since)
            elif self._momentum:
                own = hyper["momentum"][start:stop], hyper["nesterov"][start:stop]
                updates.momentum(*arrays, scale, rate, decay, *own, step == 1)
            else:
                updates.sgd(*arrays, scale, rate, decay)


def _betas(spec: RunSpec) -> list[float]:
    assert isinstance(spec.optim, s.Adam)
    return spec.optim.betas


def _flat(tensor: torch.Tensor) -> np.ndarray:
    return tensor.view(len(tensor), -1).numpy()
