"""What kind of tensor a hook was handed: inside a function transform, a recomputation, a trace."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import get_unwrapped, is_batchedtensor, is_functorch_wrapped_tensor
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

#: Whether this torch lets a hook be set without a handle.
DIRECT = hasattr((torch.zeros(1, requires_grad=True) * 1).grad_fn, "_register_hook_dict")


def plain(tensor: Tensor) -> Tensor | None:
    """The plain tensor inside function transforms; None where units or values cannot be told.

    Under vmap the extra axis may be members of an ensemble or single inputs: which, nobody can tell.
    """
    while is_functorch_wrapped_tensor(tensor):
        if is_batchedtensor(tensor):
            return None
        tensor = get_unwrapped(tensor)
    return None if tensor.device.type == "meta" else tensor


def outside_transforms(tensor: Tensor, value: Tensor) -> AbstractContextManager[object]:
    """A context in which `value`, the plain inside of `tensor`, can be computed with."""
    return nullcontext() if value is tensor else temporarily_clear_interpreter_stack()


def recomputing() -> bool:
    """Whether this forward is a checkpoint's recomputation inside a backward pass."""
    return torch._C._current_graph_task_id() != -1


def watch_gradient(z: Tensor, hook: Callable[[Tensor], None]) -> None:
    """`z.register_hook(hook)`, in a third of the time where z has no hook yet: nobody asks for a handle."""
    node = z.grad_fn
    if node is None or z._backward_hooks is not None or not DIRECT:
        z.register_hook(hook)
        return
    hooks: OrderedDict[int, Callable[[Tensor], Any]] = OrderedDict()
    hooks[-1] = hook  # handles count up from 0
    z._backward_hooks = hooks
    node._register_hook_dict(z)  # pyright: ignore[reportAttributeAccessIssue]
