"""The loss's graph: where a model's outputs are in it, and whether a path to the parameters bypasses them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree

from harness.graph.autograd import nodes
from harness.hooks._torch import without_transforms
from harness.kernels.countable import has_values

NODES = 200_000  # largest number of visited nodes
RECTIFIERS = ("ReluBackward", "ThresholdBackward", "HardtanhBackward", "ClampMinBackward", "ClampBackward")
VIEWS = ("View", "UnsafeView", "ReshapeAlias", "Squeeze", "Unsqueeze", "Transpose", "Permute", "T")


def outputs_of(output: Any) -> list[Tensor]:
    """The differentiable tensors of an output, including those in tuples, mappings and data classes."""
    parts = [t for t in _pytree.tree_leaves(output) if isinstance(t, Tensor)]
    if not parts and hasattr(output, "__dict__"):
        parts = [t for t in vars(output).values() if isinstance(t, Tensor)]
    parts = [t for t in parts if without_transforms(t) is t and has_values(t)]
    return [t for t in parts if t.requires_grad and t.grad_fn is not None and t.is_floating_point()]


def first_values(output: Tensor, most: int) -> Tensor:
    """A copy of the first values of an output, along its first axes, so that few are kept of a large one.

    Example:
        >>> ones = Tensor(4, 3, 2)
        >>> first_values(ones, 100).shape, first_values(ones, 13).shape
        (torch.Size([4, 3, 2]), torch.Size([2, 3, 2]))
    """
    part = output.detach()
    while part.ndim and part.numel() > most:
        part = part[: max(1, len(part) * most // part.numel())] if len(part) > 1 else part[0]
    return part.clone()


def hidden_of(outputs: Sequence[Tensor]) -> set[int]:
    """Outputs from which another output is computed: hidden layers that are returned as well."""
    if len(outputs) < 2:
        return set()
    roots: dict[int, Any] = {id(out): out.grad_fn for out in outputs}
    found: set[int] = set()
    for own, root in roots.items():
        inside = set(nodes([parent for parent, _ in root.next_functions if parent is not None], NODES))
        found |= {key for key, node in roots.items() if key != own and node in inside}
    return found


def is_rectified(output: Tensor) -> bool:
    """Whether an output is that of a ReLU, or a view of it."""
    node = output.grad_fn
    while node is not None and node.name().startswith(tuple(f"{view}Backward" for view in VIEWS)):
        node = node.next_functions[0][0]
    return node is not None and node.name().startswith(RECTIFIERS)


def bypassed(loss: Any, outputs: Sequence[Tensor], model: nn.Module) -> bool:
    """Whether the loss depends on a parameter of the model other than through the outputs."""
    own = {id(p) for p in model.parameters()}
    stop = {out.grad_fn for out in outputs}
    return any(id(getattr(node, "variable", None)) in own for node in nodes([loss], NODES, stop))


def behind_loss(loss: Any, outputs: Sequence[Tensor]) -> list[Tensor]:
    """The outputs from which a loss is computed."""
    own = {out.grad_fn for out in outputs}
    found = {node for node in nodes([loss], NODES) if node in own}
    return [out for out in outputs if out.grad_fn in found]
