"""Whether a user's own network can be stacked, tried with two members and inputs of zeros."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.conv import _ConvTransposeNd

from harness.config import RunSpec
from harness.config.schema import Dtype
from harness.training.models import build
from harness.training.stacked.member_windows import gates_of
from harness.training.stacked.members import Observed, observed
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
    own = dict(model.named_parameters()).keys() | dict(model.named_buffers()).keys()
    for name in model.state_dict().keys() - own:
        raise ValueError(
            f"{name}: it is the parameter of another layer, too, and a stack does not share them"
        )
    if any(isinstance(module, _ConvTransposeNd) for module in model.modules()):
        raise ValueError("transposed convolutions are not stacked")
    _refuse_hidden_state(model, shape)
    parameters = stack([dict(model.named_parameters())] * 2, [name for name, _ in model.named_parameters()])
    buffers = {name: torch.stack([buffer, buffer]) for name, buffer in model.named_buffers()}
    seen = observed(spec, shape, CLASSES) if spec.record.enabled else Observed((), (), ())
    network = StackedModule(model, seen.calls, parameters, buffers, shape)
    gates_of([spec], [module for _, module in seen.modules], own=False)
    dtype = torch.float64 if spec.dtype is Dtype.float64 else torch.float32
    x = torch.zeros(2, 2, *shape, dtype=dtype).flatten(2)
    network.backward(network.forward(x, lambda number, z: None))


def _refuse_hidden_state(model: nn.Module, shape: tuple[int, ...]) -> None:
    """Raise ValueError if a forward replaces buffers, or if outputs in evaluation depend on the batch."""
    before = {name: id(buffer) for name, buffer in model.named_buffers()}
    dtype = next(model.parameters()).dtype
    x = torch.randn(4, *shape, dtype=dtype, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.train()(x)
        if before != {name: id(buffer) for name, buffer in model.named_buffers()}:
            raise ValueError("a forward pass replaces a buffer")
        model.eval()
        if not torch.allclose(model(x)[:2], model(x[:2]), rtol=1e-3, atol=1e-4):
            raise ValueError("in evaluation mode, the output for an input depends on the others")
    model.train()
