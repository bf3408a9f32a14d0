"""Recurrence: whether a tensor depends on an earlier call of an activation, as the state of a cell does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from harness.graph.producers import Producer
from harness.graph.tensor_map import TensorMap

INPUT = "input of"  # with a caller: what it was called on
TRIAL = 32  # starts and ends of forwards after which a model without recurrence is no longer followed


class Recurrence:
    """Follows the inputs and outputs of activations, within a forward and from one forward to the next.

    Does not keep tensors alive. An activation is identified by its caller.
    """

    def __init__(self) -> None:
        self._behind = TensorMap[frozenset[Any]]()
        self._clock = 0
        self._applied: dict[Producer, int] = {}
        self._called: dict[Any, int] = {}
        self._trial = TRIAL

    def separate(self) -> None:
        """Mark the start or end of a forward: only tensors that are still alive matter in the next one."""
        self._applied.clear()
        self._called.clear()
        self._trial -= 1
        self._behind.forget_dead()

    def apply(self, producers: Iterable[Producer]) -> None:
        """Record that weights are used."""
        self._clock += 1
        self._applied.update((producer, self._clock) for producer in producers)

    def call(self, caller: Any, z: Tensor) -> None:
        """Record that an activation is called on z, which may be the state itself."""
        self._called[caller] = self._clock
        self.come_from((INPUT, caller), z)

    def come_from(self, caller: Any, tensor: Tensor) -> None:
        """Record that a tensor depends on a call of an activation."""
        if self._trial > 0:
            self._behind.put(tensor, self._get(tensor) | {caller})

    def hand_on(self, operands: Iterable[Tensor], outs: Iterable[Tensor]) -> None:
        """Record that `outs` depend on everything that `operands` depend on."""
        if not self._behind:
            return
        behind = frozenset().union(*map(self._get, operands))
        if behind:
            self._behind.put_all(outs, behind)

    def anew(self, caller: Any, z: Tensor) -> frozenset[Producer] | None:
        """The weights used since the caller's last call, or in this forward if that was in an earlier one.

        Returns:
            None if z does not depend on an earlier call of the caller.
        """
        if not {caller, (INPUT, caller)} & self._get(z):
            return None
        self._trial = TRIAL
        last = self._called.get(caller, 0)
        return frozenset(producer for producer, clock in self._applied.items() if clock > last)

    def is_behind(self, caller: Any, z: Tensor) -> bool:
        """Whether z depends on what an earlier call of the caller returned."""
        return caller in self._get(z)

    def _get(self, tensor: Tensor) -> frozenset[Any]:
        return self._behind.get(tensor) or frozenset()
