"""Whether a user's own network can be stacked, tried with two members and inputs of zeros."""

from __future__ import annotations

import torch

from harness.config import RunSpec
from harness.config.schema import Dtype
from harness.training.models import build
from harness.training.stacked.members import observed
from harness.training.stacked.module import StackedModule
from harness.training.stacked.parameters import stack

CLASSES = 10


def dry_step(spec: RunSpec, shape: tuple[int, ...]) -> None:
    """Take a step of a stack of two equal members.

    Args:
        spec: the run.
        shape: shape of one input.

    Raises:
        Exception: the network cannot be stacked, for example because it draws random numbers.
    """
    model = build(spec, shape, CLASSES)
    parameters = stack([dict(model.named_parameters())] * 2, [name for name, _ in model.named_parameters()])
    buffers = {name: torch.stack([buffer, buffer]) for name, buffer in model.named_buffers()}
    calls = observed(spec, shape, CLASSES).calls if spec.record.enabled else ()
    network = StackedModule(model, calls, parameters, buffers, shape)
    dtype = torch.float64 if spec.dtype is Dtype.float64 else torch.float32
    x = torch.zeros(2, 2, *shape, dtype=dtype).flatten(2)
    network.backward(network.forward(x, lambda number, z: None))
