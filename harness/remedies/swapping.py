"""Swapping: replace a module of a model with another one."""

from __future__ import annotations

from torch import nn


def put(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Replace a module under all of its names; the new one gets its mode.

    Example:
        >>> act = nn.ReLU()
        >>> model = nn.Sequential(act, nn.Linear(2, 2), act)
        >>> put(model, act, nn.Tanh())
        >>> [type(module).__name__ for module in model]
        ['Tanh', 'Linear', 'Tanh']
    """
    new.train(old.training)
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):  # `named_children` leaves out further names
            if child is old:
                setattr(parent, name, new)
