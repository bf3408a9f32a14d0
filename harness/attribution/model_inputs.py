"""The arguments of a model's forward: tensors in nested tuples, lists and mappings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from harness.hooks._torch import outside_transforms, without_transforms
from harness.kernels.countable import has_values
from harness.recording.batches import tensors_in

Inputs = tuple[Any, dict[str, Any]]  # arguments and keyword arguments of one forward


def storage_of(tensor: Tensor) -> int:
    """Address of a tensor's memory; 0 if it has none of its own."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # sparse, say
        return 0


def map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """The same nested structure with every tensor replaced; lists become tuples.

    Example:
        >>> map_tensors(torch.neg, ([torch.tensor(1)], {"mask": None}))
        ((tensor(-1),), {'mask': None})
    """
    return map_leaves(lambda leaf: isinstance(leaf, Tensor), function, value)


def map_leaves(is_leaf: Callable[[Any], bool], function: Callable[[Any], Any], value: Any) -> Any:
    """The same nested structure with every leaf replaced; lists become tuples."""
    if is_leaf(value):
        return function(value)
    if isinstance(value, Mapping):
        return {name: map_leaves(is_leaf, function, inner) for name, inner in value.items()}
    if isinstance(value, tuple | list):
        return tuple(map_leaves(is_leaf, function, inner) for inner in value)
    return value


def equal(a: Any, b: Any) -> bool:
    """Whether two nested structures hold the same values."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, Mapping):
        return set(a) == set(b) and all(equal(a[name], b[name]) for name in a)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def copy_inputs(args: Any, kwargs: Mapping[str, Any], most: int) -> Inputs | None:
    """A copy of the first `most` inputs of a batch, or of all if it is unclear which axis counts them.

    Returns:
        None if there is no tensor, under vmap, and if they have no values.
    """
    given = (args, dict(kwargs))
    if any(without_transforms(t) is None or not has_values(t) for t in tensors_in(given)):
        return None
    sizes = {t.shape[0] if t.ndim else -1 for t in tensors_in(given)}
    if not sizes:
        return None
    strided = all(t.layout is torch.strided for t in tensors_in(given))  # others cannot be sliced
    end = most if len(sizes) == 1 and -1 not in sizes and strided else None

    def copy(tensor: Tensor) -> Tensor:
        plain = without_transforms(tensor)
        assert plain is not None
        with outside_transforms(tensor, plain):
            return (plain.detach() if end is None else plain.detach()[:end]).clone()

    return map_tensors(copy, given)


def input_count(inputs: Inputs) -> int:
    """Number of inputs in a batch."""
    first = next(tensors_in(inputs))
    return first.shape[0] if first.ndim else 1


def byte_count(inputs: Inputs) -> int:
    """Size of its tensors in bytes."""
    return sum(t.numel() * t.element_size() for t in tensors_in(inputs))
