"""A user's configuration as plain values, and the name of the run that it makes."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.store.folder import CONFIG
from harness.store.reading import DamagedFile, checked

Config = (
    Mapping[str, Any] | argparse.Namespace | Any
)  # OmegaConf's DictConfig is a Mapping, dataclasses serve too


def plain_config(config: Config | None) -> dict[str, Any]:
    """Nested plain values of a configuration.

    Args:
        config: a mapping (of OmegaConf, too), an `argparse.Namespace` or a dataclass. Values that are neither
            numbers, words, lists nor mappings become words.

    Raises:
        TypeError: it is none of these.
        ValueError: `seed` or `detect` are there with other values than a run's.

    Example:
        >>> plain_config(argparse.Namespace(lr=0.1, data=Path("mnist"), sizes=(64, 10)))
        {'lr': 0.1, 'data': 'mnist', 'sizes': [64, 10]}
    """
    given = {} if config is None else _mapping(config)
    if given is None:
        kinds = "a mapping, an argparse.Namespace or a dataclass"
        raise TypeError(f"config: expected {kinds}, but got {type(config).__name__}")
    try:
        return checked(Path("config"), _plain(given), CONFIG)
    except DamagedFile as error:
        raise ValueError(f"config: it {error.reason}") from None


def run_name(model: object, config: Mapping[str, Any]) -> str:
    """`<model>-<hash8>`: equal for equal configurations.

    Example:
        >>> run_name({}, {"lr": 0.1})
        'dict-c924a5f4'
    """
    text = json.dumps(config, sort_keys=True)
    return f"{type(model).__name__.lower()}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _mapping(value: Any) -> Mapping[Any, Any] | None:
    if isinstance(value, Mapping):
        return value
    if isinstance(value, argparse.Namespace):
        return vars(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
    return None


def _plain(value: Any) -> Any:
    inner = _mapping(value)
    if inner is not None:
        return {str(key): _plain(one) for key, one in inner.items()}
    if isinstance(value, list | tuple | set | frozenset | range):
        return [_plain(one) for one in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if getattr(value, "ndim", None) == 0:  # a number of NumPy or torch
        return _plain(value.item())
    return str(value)
