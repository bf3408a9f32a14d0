"""The optimizer of a stack: one kind, with separate hyperparameters for every member."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.config import RunSpec
from harness.config import schema as s
from harness.training.optimisation import factor
from harness.training.stacked import backend, device_updates, updates
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
        clips = [spec.train.clip_grad for spec in specs]
        self._clips = np.array([np.inf if c is None else c for c in clips])
        self._clipping = any(c is not None for c in clips)
        parameters = [p for p in parameters if not p.fixed]
        self._parameters = parameters
        wanted = 2 if self._adam else int(self._momentum)
        for p in parameters:
            if len(p.moments) != wanted:
                p.moments = [torch.zeros_like(p.value) for _ in range(wanted)]
        device = parameters[0].value.device
        self._ones = torch.ones(len(specs), dtype=torch.float64, device=device)
        self._compiled = backend.compiled(device)
        self._hyper = {
            name: self._of_members(np.array(row, float)) for name, row in zip(names, rows, strict=True)
        }
        self._flat: list[tuple[slice, list[Any], np.ndarray]] = [
            (
                slice(p.members.start, p.members.stop),
                [self._seen(t.view(len(t), -1)) for t in (p.value, p.grad, *p.moments)],
                p.since,
            )
            for p in parameters
        ]

    def scales(self) -> Tensor:
        """Factors (K,), float64, by which clipping scales the gradients of each member."""
        if not self._clipping:
            return self._ones
        first = self._parameters[0].value
        norms = first.new_zeros(len(self._clips), len(self._parameters))
        for column, p in enumerate(self._parameters):
            rows = slice(p.members.start, p.members.stop)
            norms[rows, column] = torch.linalg.vector_norm(p.grad.flatten(1), dim=1)
        whole = torch.linalg.vector_norm(norms, dim=1)
        clipped = torch.from_numpy(self._clips).to(first.device)
        held = (clipped.to(whole.dtype) / (whole + 1e-6)).clamp(max=1.0)
        return torch.where(clipped.isinf(), 1.0, held.double())

    def step(self, lr: np.ndarray, step: int, scales: Tensor) -> None:
        """Perform update number `step` (from 1) with learning rates lr and gradient factors scales (K,)."""
        kind: Any = updates if self._compiled else device_updates
        own, rates = self._hyper, self._of_members(lr)
        scaled = scales.numpy() if self._compiled else scales.unsqueeze(1)
        for rows, tensors, since in self._flat:
            shared = *tensors, scaled[rows], rates[rows], own["weight_decay"][rows]
            if self._adam:
                counts = self._of_members(step - since)
                kind.adam(*shared, own["beta1"][rows], own["beta2"][rows], self._decoupled, counts)
            elif self._momentum:
                kind.momentum(*shared, own["momentum"][rows], own["nesterov"][rows], step == 1)
            else:
                kind.sgd(*shared)

    def _seen(self, tensor: Tensor) -> Any:
        return tensor.numpy() if self._compiled else tensor

    def _of_members(self, values: np.ndarray) -> Any:
        """Values (K,) in the form that the updates expect."""
        if self._compiled:
            return values
        return torch.from_numpy(values.astype(np.float64)).unsqueeze(1).to(self._ones.device)


def _betas(spec: RunSpec) -> list[float]:
    assert isinstance(spec.optim, s.Adam)
    return spec.optim.betas
