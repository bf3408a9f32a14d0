"""What users call a batch, and how a model is called with one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

Batch = Tensor | tuple[Any, ...] | list[Any] | Mapping[str, Any]


def as_batches(batches: Batch | Iterable[Batch]) -> Iterable[Batch]:
    """A bare tensor or mapping is one batch; everything else is iterated.

    Raises:
        TypeError: not iterable.
    """
    if isinstance(batches, Tensor | Mapping):
        return [cast("Batch", batches)]
    if not isinstance(batches, Iterable):
        came = type(batches).__name__
        raise TypeError(f"batches: expected a tensor or an iterable of batches, but got {came}")
    return cast("Iterable[Batch]", batches)


def call(model: nn.Module, batch: Batch, device: torch.device | None) -> Any:
    """The model's output: a tensor is the input, of a tuple or list the first item, a dict is keywords.

    Raises:
        TypeError: a batch of another kind.
    """
    if isinstance(batch, Mapping):
        return model(**{name: _moved(value, device) for name, value in batch.items()})
    if isinstance(batch, tuple | list) and batch:
        batch = batch[0]
    if isinstance(batch, list) and batch and all(isinstance(image, Tensor) for image in batch):
        return model([_moved(image, device) for image in batch])  # of different sizes: a detector's
    if not isinstance(batch, Tensor):
        raise TypeError(
            "a batch: expected a tensor, a tuple or list whose first item is the input, or a dict of keyword "
            f"arguments, but got {type(batch).__name__}"
        )
    return model(_moved(batch, device))


def device_of(model: nn.Module) -> torch.device | None:
    """Where the model's first parameter or buffer lies."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return None


@contextmanager
def preserve_state(model: nn.Module) -> Iterator[None]:
    """Passes in the block, in the model's modes, change no buffer and no random state.

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
        if buffer is not None and not is_lazy(buffer)  # what the first forward makes stays
    ]
    devices = {p.device for p in model.parameters()}
    cuda = [device.index for device in devices if device.type == "cuda" and device.index is not None]
    with torch.random.fork_rng(devices=cuda):
        try:
            yield
        finally:
            with torch.no_grad():
                for module, name, buffer, kept in buffers:
                    module._buffers[name] = buffer
                    if not torch.equal(buffer, kept):
                        buffer.copy_(kept)


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluation mode in which nothing lasting changes: modes, buffers and random states come back."""
    modes = [(module, module.training) for module in model.modules()]
    with preserve_state(model):
        try:
            model.eval()
        except NotImplementedError:  # an exported program, whose mode is built in
            for module, _ in modes:
                module.training = False
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode


def _moved(value: Any, device: torch.device | None) -> Any:
    return value.to(device) if isinstance(value, Tensor) and device is not None else value
