"""The arguments of a model's forward: tensors in nested tuples, lists and mappings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.hooks._torch import outside_transforms, without_transforms
from harness.kernels.countable import has_values
from harness.kernels.same_values import same_values
from harness.recording.batches import tensors_in

OBJECT = 64  # inputs for which an object counts
PLAIN = (Mapping, tuple, list, bool, int, float, complex, str, bytes, type(None))
PLAIN += (type, torch.dtype, torch.device, Enum)
Inputs = tuple[Any, dict[str, Any]]  # arguments and keyword arguments of one forward


def storage_of(tensor: Tensor) -> int:
    """Address of a tensor's memory; 0 if it has none of its own."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # sparse, say
        return 0


def map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """The same nested structure with every tensor replaced.

    Example:
        >>> map_tensors(torch.neg, ([torch.tensor(1)], {"mask": None}))
        ([tensor(-1)], {'mask': None})
    """
    return map_leaves(lambda leaf: isinstance(leaf, Tensor), function, value)


def map_leaves(is_leaf: Callable[[Any], bool], function: Callable[[Any], Any], value: Any) -> Any:
    """The same nested structure with every leaf replaced."""
    if is_leaf(value):
        return function(value)
    if isinstance(value, Mapping):
        return {name: map_leaves(is_leaf, function, inner) for name, inner in value.items()}
    if isinstance(value, tuple | list):
        inner = [map_leaves(is_leaf, function, one) for one in value]
        if isinstance(value, list):
            return inner
        return type(value)(*inner) if hasattr(value, "_fields") else tuple(inner)
    return value


def equal(a: Any, b: Any) -> bool:
    """Whether two nested structures hold the same values."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and same_values(a, b)
    if isinstance(a, Mapping):
        return set(a) == set(b) and all(equal(a[name], b[name]) for name in a)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def copy_inputs(args: Any, kwargs: Mapping[str, Any], most: int) -> Inputs | None:
    """A copy of the first `most` inputs of a batch, or of all if it is unclear which axis counts them.

    Arrays of numpy become tensors. Without any tensor, objects are cloned, such as graphs.

    Returns:
        None under vmap, if tensors have no values, and if objects cannot be cloned.
    """
    try:
        given = map_leaves(lambda leaf: isinstance(leaf, np.ndarray), _tensor_of, (args, dict(kwargs)))
    except TypeError:  # arrays of words, say
        return None
    if any(without_transforms(t) is None or not has_values(t) for t in tensors_in(given)):
        return None
    sizes = {t.shape[0] if t.ndim else -1 for t in tensors_in(given)}
    if not sizes:
        return _cloned(given)
    strided = all(t.layout is torch.strided for t in tensors_in(given))  # others cannot be sliced
    end = most if len(sizes) == 1 and -1 not in sizes and strided else None

    def copy(tensor: Tensor) -> Tensor:
        plain = without_transforms(tensor)
        assert plain is not None
        with outside_transforms(tensor, plain):
            return (plain.detach() if end is None else plain.detach()[:end]).clone()

    return map_tensors(copy, given)


def _tensor_of(array: np.ndarray) -> Tensor:
    """A copy, since torch warns of arrays that cannot be written to, and refuses reversed ones."""
    return torch.from_numpy(array.copy())


def _cloned(given: Inputs) -> Inputs | None:
    """A copy of arguments without tensors; None if an object among them cannot be copied."""
    try:
        return map_leaves(lambda leaf: not isinstance(leaf, PLAIN), lambda one: one.clone(), given)
    except Exception:  # whatever a method of that name does
        return None


def are_plain(inputs: Inputs) -> bool:
    """Whether arguments consist of tensors and plain values alone."""
    found: list[Any] = []
    map_leaves(lambda leaf: type(leaf) not in (dict, tuple, list), found.append, inputs)
    return all(isinstance(leaf, Tensor | bool | int | float | str | None) for leaf in found)


def input_count(inputs: Inputs) -> int:
    """Number of inputs in a batch; an object, a graph say, counts as many."""
    first = next(tensors_in(inputs), None)
    if first is None:
        return 1 if are_plain(inputs) else OBJECT
    return first.shape[0] if first.ndim else 1


def byte_count(inputs: Inputs) -> int:
    """Size of its tensors in bytes."""
    return sum(t.numel() * t.element_size() for t in tensors_in(inputs))
