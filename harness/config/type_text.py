"""Describe the valid values of a configuration key in words."""

from __future__ import annotations

import types
import typing
from enum import Enum
from typing import Any

from omegaconf import DictConfig, OmegaConf

NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def expectation(node: DictConfig, leaf: str) -> str:
    """Describe the valid values of the field `leaf` of a typed node."""
    owner = OmegaConf.get_type(node)
    if owner is None or leaf not in getattr(owner, "__dataclass_fields__", {}):
        return "another type"
    return range_of(owner, leaf)


def range_of(owner: type, leaf: str) -> str:
    """Describe the valid values of the field `leaf` of a dataclass, with its range if it has one."""
    hint = typing.get_type_hints(owner)[leaf]
    limits = vars(owner)["__dataclass_fields__"][leaf].metadata.get("limits")
    words = in_words(hint)
    if limits is None or str(limits) == "a finite number":
        return words
    kind, null, _ = words.partition(" or null")
    return str(limits).replace("a number", kind, 1) + (", or null" if null else "")


def in_words(hint: Any) -> str:
    """Describe a type hint in words.

    >>> in_words(int | None)
    'a whole number or null'
    """
    if isinstance(hint, type) and issubclass(hint, Enum):
        return f"one of {', '.join(m.name for m in hint)}"
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return " or ".join("null" if a is type(None) else in_words(a) for a in arguments)
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is dict:
        return "keys with values, e.g. {width: 64}"
    if origin is list:
        return f"a list, each {in_words(arguments[0])}"
    return NAMES.get(hint, str(getattr(hint, "__name__", hint)))
