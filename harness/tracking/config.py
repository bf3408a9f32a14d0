"""Convert a user's configuration to plain values, and derive the name of the run from it."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from harness.store.folder import CONFIG
from harness.store.reading import DEEPEST, DamagedFile, checked, one_line

Config = (
    Mapping[str, Any] | argparse.Namespace | Any
)  # OmegaConf's DictConfig is a Mapping; dataclasses work too
LARGEST = 1 << 18  # most characters of a configuration as JSON
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # memory address in a repr, which differs between processes
BITS = 64


def plain_config(config: Config | None) -> dict[str, Any]:
    """Convert a configuration to nested plain values.

    Args:
        config: a mapping (including OmegaConf's), an `argparse.Namespace` or a dataclass. Values that are not
            numbers, strings, lists or mappings become strings that are the same in every process.

    Raises:
        TypeError: it is none of these.
        ValueError: a value cannot be converted, two keys coincide, it is too large or too deep, or `seed` or
            `detect` have values of the wrong type.

    Example:
        >>> plain_config(argparse.Namespace(lr=0.1, data=Path("mnist"), sizes=(64, 10), model=Path))
        {'lr': 0.1, 'data': 'mnist', 'sizes': [64, 10], 'model': 'pathlib.Path'}
    """
    given = {} if config is None else _mapping(config)
    if given is None:
        kinds = "a mapping, an argparse.Namespace or a dataclass"
        raise TypeError(f"config: expected {kinds}, but got {type(config).__name__}")
    try:
        plain = checked(Path("config"), _plain_mapping(given, "", 0), CONFIG)
    except DamagedFile as error:
        raise ValueError(f"config: it {error.reason}") from None
    size = len(json.dumps(plain))
    if size > LARGEST:
        raise ValueError(f"config: expected at most {LARGEST:,} characters, but got {size:,}")
    return plain


def run_name(model: object, config: Mapping[str, Any]) -> str:
    """Return `<model>-<hash8>`, which is equal for equal configurations.

    Example:
        >>> run_name({}, {"lr": 0.1})
        'dict-c924a5f4'
    """
    text = json.dumps(config, sort_keys=True)
    return f"{type(model).__name__.lower()}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def run_path(output: Any, name: Any) -> Path:
    """Return the folder of a run.

    Raises:
        TypeError: `output` is not a path, or `name` is not a string.
        ValueError: one of them is not a valid name of a folder, or the folder would be hidden.

    Example:
        >>> run_path("runs", "mine").as_posix()
        'runs/mine'
    """
    if not isinstance(output, str | os.PathLike) or not isinstance(os.fspath(output), str):
        raise TypeError(f"output: expected a folder's path, but got {type(output).__name__}")
    if not isinstance(name, str):
        raise TypeError(f"name: expected a word, but got {type(name).__name__}")
    for argument, value in (("output", os.fspath(output)), ("name", name)):
        if "\0" in value or value.encode("utf-8", "ignore").decode() != value:
            raise ValueError(f"{argument}: expected words that a file system takes, but got {value!r}")
    if not name or name.startswith(".") or Path(name).name != name:  # `open_runs` skips hidden folders
        raise ValueError(f"name: expected the name of a folder that is not hidden, but got {name!r}")
    return Path(output).expanduser() / name


def _mapping(value: Any) -> Mapping[Any, Any] | None:
    if isinstance(value, Mapping):
        return value
    if isinstance(value, argparse.Namespace):
        return vars(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
    return None


def _plain_mapping(given: Mapping[Any, Any], key: str, depth: int) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for name in _converted(key, lambda: list(given)):
        word = _word(name)
        full = f"{key}.{word}" if key else word
        if word in plain or ("." in word and _reaches(given, word)):
            raise ValueError(f"config: two keys are {full!r}")
        plain[word] = _plain(_converted(full, lambda name=name: given[name]), full, depth + 1)
    return plain


def _reaches(given: Mapping[Any, Any], dotted: str) -> bool:
    """Whether a key with dots is also a path through nested mappings, so that both would be one column."""
    found: Any = given
    for part in dotted.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return False
        found = found[part]
    return True


def _plain(value: Any, key: str, depth: int) -> Any:
    if depth > DEEPEST:
        raise ValueError(
            f"config: expected at most {DEEPEST} levels, but {key[:60]}… has more, or contains itself"
        )
    inner = _mapping(value)
    if inner is not None:
        return _plain_mapping(inner, key, depth)
    if isinstance(value, set | frozenset):  # their order differs between processes
        return sorted((_plain(one, key, depth + 1) for one in value), key=str)
    if isinstance(value, list | tuple | range):
        return [_plain(one, key, depth + 1) for one in value]
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        if value.bit_length() >= BITS:
            raise ValueError(f"config: expected numbers of less than {BITS} bits, but {key} has more")
        return int(value)
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray | Tensor) and value.ndim == 0):
        return _plain(value.item(), key, depth + 1)
    return _converted(key, lambda: _word(value))


def _word(value: Any) -> str:
    """Convert any object to a string that is the same in every process and can be encoded."""
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        text = f"{value.__module__}.{value.__qualname__}"
    else:
        text = ADDRESS.sub("", str(value))
    return text.encode("utf-8", "backslashreplace").decode()


def _converted(key: str, get: Callable[[], Any]) -> Any:
    """Call a function that may run user code, and name the key in its errors."""
    try:
        return get()
    except Exception as error:
        raise ValueError(f"config: {key or 'it'} cannot be kept ({one_line(error)})") from None
