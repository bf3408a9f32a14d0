"""Attributes as an object stores them, so that inspecting a module runs none of its code.

A parametrised weight, a property and `__getattr__` compute what they return: reading a spectral norm's weight
in training mode changes its buffers, and a random one would use up the training's random numbers.
"""

from __future__ import annotations

from inspect import getattr_static
from typing import Any

STORES = ("_parameters", "_buffers", "_modules")  # attributes of a module


def stored(owner: Any, name: str, default: Any = None) -> Any:
    """An attribute stored by the object itself or its class; `default` if there is none.

    Example:
        >>> import torch
        >>> layer = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(2, 3))
        >>> stored(layer, "weight"), stored(layer, "out_features"), stored(layer, "bias") is layer.bias
        (None, 3, True)
    """
    if is_computed(owner, name):
        return default
    kept = vars(owner) if hasattr(owner, "__dict__") else {}
    for store in (*(kept[one] for one in STORES if one in kept), kept):
        if name in store:
            return store[name]
    return getattr_static(type(owner), name, default)


def is_computed(owner: Any, name: str) -> bool:
    """Whether reading an attribute runs code: a parametrisation, or a user-defined property.

    Example:
        >>> import torch
        >>> layer = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(2, 3))
        >>> is_computed(layer, "weight"), is_computed(layer, "bias")
        (True, False)
    """
    return hasattr(type(getattr_static(type(owner), name, None)), "__get__")
