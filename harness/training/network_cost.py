"""What a training step of a network costs, measured on tensors without memory."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from harness.config import RunSpec
from harness.config.schema import Dtype
from harness.training.models import build

INPUTS = 2  # batch normalisation needs more than one
COPIES = 5  # of the parameters: values, gradients, the optimizer's two moments, what a step computes


class NetworkCost(NamedTuple):
    """Cost of a network.

    Attributes:
        multiplications: of matrix products and convolutions, for one input.
        step_bytes: memory of a training step with the run's batch size.
    """

    multiplications: int
    step_bytes: int


def network_cost(spec: RunSpec, shape: tuple[int, ...], classes: int = 10) -> NetworkCost:
    """Cost of a run's network.

    Args:
        spec: the run.
        shape: shape of one input.
        classes: number of outputs.

    Raises:
        ConfigError: the network cannot be made, or cannot read such inputs.
        Exception: its code cannot run on tensors without memory.

    Example:
        >>> from harness.config import compose
        >>> spec = compose(["model.depth=1", "model.width=100"])
        >>> network_cost(spec, (1, 8, 8)).multiplications  # 64 · 100 + 100 · 10
        7400
    """
    model = build(spec, shape, classes).to("meta")
    dtype = torch.float64 if spec.dtype is Dtype.float64 else torch.float32
    saved = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal saved
        saved += tensor.numel() * tensor.element_size() if not tensor.is_leaf else 0
        return tensor

    with FlopCounterMode(display=False) as counter, saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.zeros(INPUTS, *shape, dtype=dtype, device="meta"))
    parameters = sum(p.numel() * p.element_size() for p in model.parameters())
    of_batch = saved * spec.train.batch_size // INPUTS
    return NetworkCost(counter.get_total_flops() // (2 * INPUTS), COPIES * parameters + 2 * of_batch)
