"""Updates: which steps of optimizers update a model, and which of them are one step of the training."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

from torch import nn
from torch.optim import Optimizer


class Updates:
    """Turns the steps of optimizers into steps of a training.

    An update begins with an optimizer's first step after a forward pass of the model. Other optimizers that
    step after the same forward pass belong to it, as do those that a wrapper such as SAM calls inside.

    Args:
        model: the model.
        given: optimizers that train it in any case, even if they hold copies of its parameters.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        >>> body, head = (torch.optim.SGD(part.parameters(), 0.1) for part in model)
        >>> updates = Updates(model, [])
        >>> [updates.begins(optimizer, forwards=1) for optimizer in (body, head, body, head)]
        [True, False, True, False]
        >>> updates.begins(head, forwards=2)
        True
    """

    def __init__(self, model: nn.Module, given: Sequence[Optimizer]) -> None:
        self._model, self._given = model, given
        self._known: weakref.WeakKeyDictionary[Optimizer, int] = weakref.WeakKeyDictionary()
        self._joined: weakref.WeakSet[Optimizer] = weakref.WeakSet()  # those of the latest update
        self._forwards = -1  # number of forward passes at the latest update

    def is_given(self, optimizer: Optimizer) -> bool:
        """Whether the user has named this optimizer."""
        return any(optimizer is one for one in self._given)

    def trains(self, optimizer: Optimizer) -> bool:
        """Whether an optimizer updates the model: it was given, or holds a parameter of it.

        A no is not remembered, since modules can be added later.
        """
        size = sum(len(group["params"]) for group in optimizer.param_groups)
        if self.is_given(optimizer) or self._known.get(optimizer) == size:
            return True
        mine = {id(parameter) for parameter in self._model.parameters()}
        held = (parameter for group in optimizer.param_groups for parameter in group["params"])
        found = any(id(parameter) in mine for parameter in held)
        if found:
            self._known[optimizer] = size
        return found

    def begins(self, optimizer: Optimizer, *, forwards: int) -> bool:
        """Whether an optimizer's step begins an update, and does not belong to the latest one.

        Args:
            optimizer: the optimizer that has stepped.
            forwards: number of forward passes so far.
        """
        new = forwards != self._forwards or optimizer in self._joined
        if new:
            self.by_hand(forwards)
        self._joined.add(optimizer)
        return new

    def by_hand(self, forwards: int) -> None:
        """Begin an update that no optimizer has made so far."""
        self._joined.clear()
        self._forwards = forwards
