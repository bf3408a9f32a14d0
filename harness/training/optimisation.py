"""Optimizers and learning-rate schedules."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from harness.config import RunSpec
from harness.config import schema as s


def make_optimizer(spec: RunSpec, model: nn.Module) -> Optimizer:
    """Create the optimizer of a run, for all parameters of the model."""
    o, parameters = spec.optim, list(model.parameters())
    if isinstance(o, s.Adam):
        cls = AdamW if o.name == "adamw" else Adam
        beta1, beta2 = o.betas
        return cls(parameters, lr=o.lr, betas=(beta1, beta2), weight_decay=o.weight_decay)
    if isinstance(o, s.Momentum):
        return SGD(
            parameters,
            lr=o.lr,
            momentum=o.momentum,
            nesterov=o.nesterov,
            weight_decay=o.weight_decay,
        )
    return SGD(parameters, lr=o.lr, weight_decay=o.weight_decay)


def factor(schedule: s.Schedule, step: int, total: int) -> float:
    """Learning rate relative to its peak, for the update after `step` completed steps of `total`.

    Example:
        >>> [factor(s.Warmup("warmup", steps=4), k, 10) for k in range(5)]
        [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    if isinstance(schedule, s.Warmup):
        return min(1.0, (step + 1) / schedule.steps)
    if isinstance(schedule, s.Step):
        return schedule.gamma ** (step // schedule.every)
    if isinstance(schedule, s.Cosine):
        if step < schedule.warmup_steps:
            return (step + 1) / schedule.warmup_steps
        length = max(1, total - 1 - schedule.warmup_steps)
        progress = min(1.0, (step - schedule.warmup_steps) / length)
        return schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * progress)) / 2
    return 1.0


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = lr
