"""Convert a RunSpec to plain values, for files, hashes and tables."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from enum import Enum
from typing import Any

from harness.config.schema import RunSpec


def to_mapping(spec: RunSpec) -> dict[str, Any]:
    """Convert a specification to nested plain values in the schema's order, with enums by name."""
    return _plain(spec)


def flatten(mapping: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a nested mapping to dotted keys.

    >>> flatten({"optim": {"lr": 0.1}, "seed": 0})
    {'optim.lr': 0.1, 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for name, value in mapping.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def with_value(spec: Any, key: str, value: Any) -> Any:
    """Copy a nested specification with one value changed; unaffected parts are shared.

    Example:
        >>> from harness.config import compose
        >>> with_value(compose(), "optim.lr", 0.5).optim.lr
        0.5
    """
    name, _, rest = key.partition(".")
    if isinstance(spec, dict):
        return {**spec, name: with_value(spec.get(name, {}), rest, value) if rest else value}
    return replace(spec, **{name: with_value(getattr(spec, name), rest, value) if rest else value})


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Enum):
        return value.name
    return [_plain(v) for v in value] if isinstance(value, list) else value
