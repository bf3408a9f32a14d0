"""Whether a user's own network can be stacked: two members take a step, and so does each by itself."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from harness.config import RunSpec
from harness.config.schema import Dtype
from harness.training.models import build
from harness.training.stacked.member_gates import gates_of
from harness.training.stacked.members import Observed, observed
from harness.training.stacked.module import StackedModule
from harness.training.stacked.parameters import stack

CLASSES = 10
INPUTS = 4  # of each member
OF_EVERY_MODULE = frozenset(vars(nn.Module()))
PLAIN = (bool, int, float, complex, str, type(None), list, tuple, dict, set)


def dry_step(spec: RunSpec, shape: tuple[int, ...]) -> None:
    """Take a step of a stack of two members that begin alike, and compare it with their own steps.

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
    draw = torch.Generator().manual_seed(0)
    dtype = torch.float64 if spec.dtype is Dtype.float64 else torch.float32
    x = torch.rand(2, INPUTS, *shape, dtype=dtype, generator=draw)
    d = torch.randn(2, INPUTS, CLASSES, dtype=dtype, generator=draw)
    _refuse_hidden_state(copy.deepcopy(model), x[0])
    alone = [_own_step(copy.deepcopy(model), *inputs) for inputs in zip(x, d, strict=True)]
    parameters = stack([dict(model.named_parameters())] * 2, [name for name, _ in model.named_parameters()])
    buffers = {name: torch.stack([buffer, buffer]) for name, buffer in model.named_buffers()}
    seen = observed(spec, shape, CLASSES) if spec.record.enabled else Observed((), (), ())
    network = StackedModule(model, seen.calls, parameters, buffers, shape)
    gates_of([spec], [module for _, module in seen.modules], own=False)
    logits = network.forward(x.flatten(2), lambda number, z: None)
    network.backward(d.transpose(1, 2))
    together = {"logits": logits.transpose(1, 2), **{p.name: p.grad for p in parameters}, **buffers}
    for place, found in enumerate(alone):
        for name, tensor in found.items():
            if not torch.allclose(together[name][place], tensor, rtol=1e-3, atol=1e-4, equal_nan=True):
                raise ValueError(f"{name}: it differs between a step in a stack and a step alone")


def _own_step(model: nn.Module, x: Tensor, d: Tensor) -> dict[str, Tensor]:
    """Logits, gradients and buffers of an ordinary step; `d` is ∂L/∂logits."""
    logits = model.train()(x)
    logits.backward(d)
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"logits": logits.detach(), **gradients, **dict(model.named_buffers())}


def _refuse_hidden_state(model: nn.Module, x: Tensor) -> None:
    """Raise ValueError if a forward changes what a stack does not carry, or mixes inputs in evaluation."""
    model.train()
    with torch.no_grad():
        buffers, before = {name: id(buffer) for name, buffer in model.named_buffers()}, _attributes(model)
        model(x)
        if buffers != {name: id(buffer) for name, buffer in model.named_buffers()}:
            raise ValueError("a forward pass replaces a buffer")
        model.eval()
        whole, part = model(x), model(x[:2])
    after = _attributes(model)
    for name in before.keys() | after.keys():
        if before.get(name) != after.get(name):
            raise ValueError(f"{name}: a forward pass changes it, and a stack has it once for all members")
    if not torch.allclose(whole[:2], part, rtol=1e-3, atol=1e-4):
        raise ValueError("in evaluation mode, the output for an input depends on the others")


def _attributes(model: nn.Module) -> dict[str, str]:
    """The Python values and tensors that modules keep, other than parameters and buffers."""

    def text(value: Any) -> str:
        return repr(value) if isinstance(value, PLAIN) else str(id(value))

    return {
        f"{name}.{key}".lstrip("."): text(value)
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if key not in OF_EVERY_MODULE
    }
