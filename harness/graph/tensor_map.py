"""Tensor → value for tensors that may go at any time, and whose memory another tensor may take over."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Generic, TypeVar

from torch import Tensor

V = TypeVar("V")


class TensorMap(Generic[V]):
    """Values by tensor, which is not kept alive; much faster than `torch.utils.weak.WeakIdKeyDictionary`.

    Example:
        >>> import torch
        >>> x, known = torch.ones(2), TensorMap[str]()
        >>> known.put(x, "ones")
        >>> known.get(x), known.get(torch.ones(2))
        ('ones', None)
    """

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[Tensor], V]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, tensor: Tensor, value: V) -> None:
        """Set the value of a tensor."""
        self._entries[id(tensor)] = weakref.ref(tensor), value

    def put_all(self, tensors: Iterable[Tensor], value: V) -> None:
        """Set the same value of several tensors."""
        for tensor in tensors:
            self.put(tensor, value)

    def get(self, tensor: Tensor) -> V | None:
        """The value of a tensor; None if it has none."""
        found = self._entries.get(id(tensor))
        return found[1] if found is not None and found[0]() is tensor else None

    def discard(self, tensor: Tensor) -> None:
        """Remove the value of a tensor, if it has one."""
        self._entries.pop(id(tensor), None)

    def forget_dead(self) -> None:
        """Remove the values of tensors that are gone."""
        self._entries = {key: found for key, found in self._entries.items() if found[0]() is not None}
