"""Single overrides: parse them with Hydra's grammar, and set them in a composed configuration."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException, ValidationError

from harness.config.errors import ConfigError, did_you_mean
from harness.config.schema import OPEN
from harness.config.search_path import is_option
from harness.config.tree import our_groups
from harness.config.type_text import expectation


def parse(words: Iterable[str]) -> list[Override]:
    """Parse the overrides of a command line."""
    return [parse_one(word) for word in words if not is_option(word)]


@lru_cache(maxsize=2**16)
def parse_one(text: str) -> Override:
    """Parse an override.

    Raises:
        ConfigError: it is not a valid override.
    """
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError("", f"cannot read {text!r} ({reason})", hint=_hint(text)) from None


def _hint(text: str) -> str:
    """How to write an override that cannot be read: often, its value only lacks quotes."""
    key, equals, value = text.partition("=")
    if not equals:
        return "Write key=value; commands belong to harness-tools."
    if any(mark in value for mark in "[](){},"):  # a list, a mapping or a choice that is not closed
        return "Write key=value."
    quoted = '{}="{}"'.format(key, value.replace('"', r"\""))
    try:
        OverridesParser.create().parse_override(quoted)
    except HydraException:
        return "Write key=value."
    return f"Such a value needs quotes of its own: {shlex.quote(quoted)}."


def key_of(override: Override) -> str:
    """Return the dotted key or group that an override sets."""
    return override.key_or_group


def is_hydras(override: Override) -> bool:
    """Whether an override configures Hydra instead of the run."""
    return override.key_or_group.split("@", 1)[0].split(".", 1)[0].split("/", 1)[0] == "hydra"


def set_value(config: DictConfig, override: Override) -> None:
    """Apply an override (see `assign`)."""
    assign(config, key_of(override), override.value())


def assign(config: DictConfig, key: str, value: Any) -> None:
    """Set one plain value.

    Raises:
        ConfigError: there is no such key, or it cannot take the value.
    """
    parent, _, leaf = key.rpartition(".")
    node: Any = OmegaConf.select(config, parent) if parent else config
    known = leaf_keys(config)
    if leaf == "name" and parent in our_groups():
        raise ConfigError(key, "the choice is made by the group", hint=f"Write {parent}={value}.")
    if not in_open(config, key) and (
        not isinstance(node, DictConfig)
        or leaf not in list(node)
        or isinstance(node._get_node(leaf), DictConfig)
    ):
        if key in {k.rpartition(".")[0] for k in known}:
            raise ConfigError(
                key, "this is a group", hint=f"Choose with {key}=choice or set {key}.name_of_a_key=value."
            )
        siblings = [k for k in known if k.startswith(f"{parent}.")] if parent else []
        near = did_you_mean(key, [*known, *our_groups()])
        choice = getattr(node, "get", lambda *_: None)("name") if parent else None
        own = ", ".join(k.rsplit(".", 1)[1] for k in siblings) or "no values"
        there = f"{parent}={choice} has {own}." if choice else ""
        raise ConfigError(key, "there is no such key", hint=" ".join(filter(None, (near, there))))
    try:
        with open_dict(config):
            OmegaConf.update(config, key, value, merge=True)
    except (ValidationError, OmegaConfBaseException) as error:
        raise ConfigError(key, expected=expectation(node, leaf), came=_shown(value)) from error


def in_open(config: DictConfig, key: str) -> bool:
    """Whether a key, or an override of it, belongs to a node that accepts any key."""
    key = key.partition("=")[0].lstrip("+")
    return any(
        (key == one or key.startswith(f"{one}.")) and OmegaConf.select(config, one) is not None
        for one in OPEN
    )


def leaf_keys(config: DictConfig, prefix: str = "") -> list[str]:
    """Return the dotted keys of all plain values that can be set."""
    keys: list[str] = []
    for name in config:
        node = config._get_node(str(name))
        if name in ("hydra", "name"):
            continue
        path = f"{prefix}{name}"
        keys += leaf_keys(node, f"{path}.") if isinstance(node, DictConfig) and len(node) else [path]
    return keys


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    return f"{value!r}" if isinstance(value, str) else f"{value}"
