"""Types and ranges of how a network is trained: optimizers, learning rates over time, length and batches."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from harness.config.ranges import limits


@dataclass
class Optim:
    """Plain stochastic gradient descent, and what all optimizers have."""

    name: str = MISSING
    lr: float = limits(above=0, at_most=1e36)  # learning rate at its peak; beyond, float32 overflows
    weight_decay: float = limits(at_least=0, at_most=1e36)  # of all parameters, biases included


@dataclass
class Momentum(Optim):
    """SGD with momentum."""

    momentum: float = limits(at_least=0, below=1)  # share of the last update that stays
    nesterov: bool = MISSING  # look ahead by the momentum


@dataclass
class Adam(Optim):
    """Adam and AdamW."""

    # Decay of the running mean of gradients, and of their squares.
    betas: list[float] = limits(at_least=0, below=1, length=2)  # noqa: RUF009 (a field, as all above)


@dataclass
class Schedule:
    """The learning rate's course; times are in optimizer steps."""

    name: str = MISSING


@dataclass
class Warmup(Schedule):
    """Linear from 0 over `steps`, then constant."""

    steps: int = limits(at_least=1)


@dataclass
class Cosine(Schedule):
    """Linear warm-up, then half a cosine down to `final` times the peak at the last step."""

    warmup_steps: int = limits(at_least=0)  # linear from 0, before the cosine
    final: float = limits(at_least=0, at_most=1)


@dataclass
class Step(Schedule):
    """Multiplied by `gamma` every `every` steps."""

    every: int = limits(at_least=1)
    gamma: float = limits(above=0, at_most=10)  # factor


@dataclass
class Train:
    """Length and batches of a training; the shorter of epochs and max_steps ends it."""

    epochs: int = limits(at_least=1)  # passes over the training inputs
    max_steps: int | None = limits(at_least=1)
    batch_size: int = limits(at_least=1)  # inputs of a step; an incomplete last batch is dropped
    test_every: int = limits(at_least=1)  # epochs between two passes over the test set; the last step has one
    clip_grad: float | None = limits(above=0)  # largest global gradient norm
    stop_when_dead: float | None = limits(above=0, at_most=1)  # dead share at a census that ends the training
    checkpoint_seconds: float = limits(at_least=0)  # least time between two checkpoints
    threads: int | None = limits(at_least=1, at_most=1024)  # null: one for small networks, else all cores
