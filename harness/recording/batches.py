"""Recognise batches in various forms, and run evaluation passes without side effects."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeGuard, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.rnn import PackedSequence

from harness.kernels.same_values import same_values
from harness.recording.attributes import preserve_attributes

Batch = Tensor | tuple[Any, ...] | list[Any] | Mapping[str, Any]


def as_batches(batches: Batch | Iterable[Batch], required: int = 1) -> Iterable[Batch]:
    """Wrap a single batch in a list; return several batches unchanged.

    A tensor, a mapping and an object with a method `to` (a graph, say) are one batch. A list or tuple is one
    batch if its items belong together: they agree in length and differ in type or number of axes, or cannot
    be batches themselves (for example, a label).

    Args:
        batches: one batch or several.
        required: number of inputs that the model takes; if it takes several, a tensor is never a whole batch.

    Raises:
        TypeError: `batches` is not iterable.

    Example:
        >>> inputs, labels = torch.rand(8, 3), torch.zeros(8, dtype=torch.int64)
        >>> len(list(as_batches([inputs, labels]))), len(list(as_batches([inputs, inputs])))
        (1, 2)
    """
    if isinstance(batches, Tensor | Mapping | PackedSequence) or is_object(batches):
        return [cast("Batch", batches)]
    if not isinstance(batches, Iterable):
        came = type(batches).__name__
        raise TypeError(f"batches: expected a tensor or an iterable of batches, but got {came}")
    if isinstance(batches, tuple | list) and len(batches) > 1 and _is_one(batches, required):
        return [batches]
    return cast("Iterable[Batch]", batches)


def is_object(batch: Any) -> bool:
    """Whether a batch is an object of its own kind that can be moved to a device, such as a graph."""
    plain = isinstance(batch, Tensor | tuple | list | nn.Module) or is_mapping(batch)
    return not plain and callable(getattr(type(batch), "to", None))


def is_mapping(batch: Any) -> TypeGuard[Mapping[str, Any]]:
    """Whether a batch is a mapping of names to inputs; a TensorDict is indexed like a tensor, and is not."""
    return isinstance(batch, Mapping) and not hasattr(batch, "__torch_function__")


def in_doubt(items: Sequence[Any]) -> bool:
    """Whether a list has similar tensors, so that only the model's output shows whether it is one batch.

    Example:
        >>> in_doubt([torch.rand(8, 3), torch.rand(8, 1)]), in_doubt([torch.rand(8, 3), torch.rand(4, 3)])
        (True, False)
    """
    if len(items) < 2 or not all(isinstance(item, Tensor) and item.ndim for item in items):
        return False
    return len({(len(item), item.dtype, item.ndim) for item in items}) == 1


def _is_one(items: Sequence[Any], required: int) -> bool:
    """Whether the items of a list are parts of one batch."""
    first = items[0]
    if required > 1 and all(isinstance(item, Tensor) for item in items):
        return len(items) >= required  # none of them is a whole batch: nodes and edges, say
    if not all(map(_is_batch, items)):
        return _is_batch(first) or _first_tensor(first) is not None
    if isinstance(first, Mapping):
        return any(isinstance(item, Tensor) for item in items)
    tensors = [_first_tensor(item) for item in items]
    lengths = {len(tensor) for tensor in tensors if tensor is not None}
    if len(lengths) > 1 or not any(isinstance(item, Tensor) for item in items):
        return False
    if required > 1 or any(tensor is None for tensor in tensors):  # (images, a dict of targets)
        return True
    kinds = {(tensor.dtype, tensor.ndim) for tensor in tensors if tensor is not None}
    shapes = {tensor.shape for tensor in tensors if tensor is not None}
    nested = not all(isinstance(item, Tensor) for item in items)
    return len(kinds) > 1 or (nested and len(shapes) > 1)


def _is_batch(item: Any) -> bool:
    """Whether an item could itself be a batch."""
    if isinstance(item, tuple | list):
        return _first_tensor(item) is not None or bool(item and isinstance(item[0], Mapping))
    return isinstance(item, Mapping) or (isinstance(item, Tensor) and item.ndim > 0)


def _first_tensor(item: Any) -> Tensor | None:
    while isinstance(item, tuple | list) and item:
        item = item[0]
    return item if isinstance(item, Tensor) and item.ndim else None


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Iterate over all tensors in nested tuples, lists and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from tensors_in(inner)
    elif isinstance(value, tuple | list):
        for inner in value:
            yield from tensors_in(inner)


def device_of(model: nn.Module) -> torch.device | None:
    """Device of the model's first parameter or buffer; None if it has neither."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return None


@contextmanager
def global_states_kept(devices: Sequence[int] | None = None) -> Iterator[None]:
    """Context manager: restore the states of the global generators of torch, numpy and Python.

    Args:
        devices: numbers of the CUDA devices whose generators are restored as well; None: all.

    Example:
        >>> before = random.getstate()
        >>> with global_states_kept():
        ...     _ = random.random(), np.random.rand(), torch.rand(1)
        >>> random.getstate() == before
        True
    """
    others = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(others[0])
        np.random.set_state(others[1])


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Restore the modes of a model's modules after a block."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def preserve_state(model: nn.Module) -> Iterator[None]:
    """Restore buffers, attributes and random states (Python's, numpy's and torch's) after a block's passes.

    The modes of the model's modules do not change.

    Example:
        >>> norm = nn.BatchNorm1d(2)
        >>> with preserve_state(norm):
        ...     _ = norm(torch.ones(4, 2))
        >>> norm.running_mean.tolist()
        [0.0, 0.0]
    """
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and not is_lazy(buffer)  # lazy buffers stay initialised
    ]
    devices = {p.device for p in model.parameters()}
    cuda = [device.index for device in devices if device.type == "cuda" and device.index is not None]
    with global_states_kept(cuda), preserve_attributes(model):
        try:
            yield
        finally:
            with torch.no_grad():
                for module, name, buffer, kept in buffers:
                    module._buffers[name] = buffer
                    if buffer.shape != kept.shape:  # the forward has resized it
                        buffer.resize_(kept.shape)
                    if not same_values(buffer, kept):
                        buffer.copy_(kept)


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Use evaluation mode in the block, and restore modes, buffers and random states afterwards."""
    with preserve_state(model), modes_kept(model):
        try:
            model.eval()
        except NotImplementedError:  # the mode of an exported program is fixed
            for module in model.modules():
                module.training = False
        yield
