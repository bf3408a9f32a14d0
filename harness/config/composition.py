"""Turn the words of a command line into validated RunSpecs, or one ConfigError that names the key.

Words are Hydra overrides and the options of `search_path`. Plain values are set one at a time, so that errors
name the right key and a sweep of hundreds of jobs is planned in a second.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import fields
from functools import lru_cache
from typing import Any, cast

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from harness.config.choices import decides, own, single_choices
from harness.config.errors import ConfigError, did_you_mean
from harness.config.jobs import jobs_of
from harness.config.overrides import in_open, is_hydras, key_of, leaf_keys, parse, parse_one, set_value
from harness.config.ranges import check_ranges, check_together, check_value
from harness.config.schema import OPEN, RunSpec
from harness.config.search_path import groups, joined, places
from harness.config.stored import to_mapping, with_value
from harness.config.tree import kind_of, our_groups


def compose(words: Sequence[str] = ()) -> RunSpec:
    """Compose one run from Hydra overrides.

    Args:
        words: as on the command line, e.g. ["model=cnn", "optim.lr=0.01"], including the options
            `--config-dir`, `--config-path` and `--config-name`.

    Returns:
        The validated specification, which may be changed.

    Raises:
        ConfigError: a key is unknown, or a value is missing, out of range or of the wrong type.

    Example:
        >>> compose(["optim=adam", "optim.lr=0.01"]).optim.lr
        0.01
    """
    jobs = plan(words, multirun=False)
    return copy.deepcopy(jobs[0])  # parts of it are cached


def plan(words: Sequence[str], *, multirun: bool) -> list[RunSpec]:
    """Compose and validate all runs of a command line, in Hydra's order.

    Raises:
        ConfigError: as in `compose`, or a sweep without `multirun`.
    """
    words = joined(words)
    of_runs = [override for override in parse(words) if not is_hydras(override)]
    for override in of_runs:
        _refuse_unknown_add(override, places(words))
    if multirun:
        return [_one(tuple(job)) for job in jobs_of(words)]
    for override in of_runs:
        if override.is_sweep_override():
            raise ConfigError(
                key_of(override),
                expected="one value",
                came=str(override.input_line).partition("=")[2],
                hint="Add -m to run them all.",
            )
    return [_one(tuple(words))]


def shown(words: Sequence[str]) -> dict[str, Any]:
    """Return the plain values of a command line, with "???" for missing ones.

    Raises:
        ConfigError: as in `compose`, except for missing values.
    """
    words = joined(words)
    config = copy.deepcopy(own(single_choices(words)))
    for override in parse(word for word in words if not decides(word, places(words))):
        if not override.is_sweep_override():
            set_value(config, override)
    if not OmegaConf.missing_keys(config):
        return to_mapping(checked(config))
    return cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True, enum_to_str=True))


def _one(words: tuple[str, ...]) -> RunSpec:
    """Compose one job: groups by Hydra (cached), values directly."""
    where = places(words)
    choices = tuple(word for word in words if decides(word, where))
    values = [word for word in words if word not in choices]
    base = _base(choices)
    if base is None or any("${" in word or in_open(own(choices), word) for word in values):
        config = copy.deepcopy(own(choices))
        for word in values:
            set_value(config, parse_one(word))
        return _named_as_ours(checked(config), where)
    spec = _named_as_ours(base, where)
    for word in values:
        spec = with_value(spec, *_typed(choices, word))
    if values:
        check_together(spec)
    return spec


def _base(choices: tuple[str, ...]) -> RunSpec | None:
    """Return the run of the group choices without other values; None if a value is missing."""
    return _base_with(choices, os.environ.get("HARNESS_DATA"))


@lru_cache(maxsize=256)
def _base_with(choices: tuple[str, ...], data: str | None) -> RunSpec | None:
    """Cached part of `_base`; `data` is part of the key because the default of data.root depends on it."""
    config = own(choices)
    return None if OmegaConf.missing_keys(config) else checked(config)


@lru_cache(maxsize=2**16)
def _typed(choices: tuple[str, ...], word: str) -> tuple[str, Any]:
    """Return dotted key and validated value of a plain override; it must not refer to other values."""
    config, override = _scratch(choices), parse_one(word)
    set_value(config, override)
    key = key_of(override)
    parent, _, leaf = key.rpartition(".")
    try:
        value = OmegaConf.select(config, key)
    except OmegaConfBaseException as error:
        raise _unresolved(error) from None
    node = OmegaConf.select(config, parent) if parent else config
    if value is None and OmegaConf.is_missing(node, leaf):  # other values of the scratch may be broken
        raise ConfigError(key, "a value is needed", hint=f"Give it with {key}=…")
    value = OmegaConf.to_object(value) if OmegaConf.is_config(value) else value
    owner: Any = _base(choices)
    for name in parent.split(".") if parent else ():
        owner = getattr(owner, name)
    check_value(key, next(item for item in fields(owner) if item.name == leaf), value)
    return key, value


@lru_cache(maxsize=256)
def _scratch(choices: tuple[str, ...]) -> DictConfig:
    return copy.deepcopy(own(choices))


def checked(config: DictConfig) -> RunSpec:
    """Convert a composed configuration to a validated RunSpec.

    Raises:
        ConfigError: a value is missing or out of range.
    """
    try:
        spec = cast("RunSpec", OmegaConf.to_object(config))
    except MissingMandatoryValue as error:
        key = str(error.full_key)
        raise ConfigError(key, "a value is needed", hint=f"Give it with {key}=…") from None
    except OmegaConfBaseException as error:
        raise _unresolved(error) from None
    check_ranges(spec)
    check_together(spec)
    return spec


def _unresolved(error: OmegaConfBaseException) -> ConfigError:
    """Return the error for an interpolation without a target, or with a value that the key cannot take."""
    reason = " ".join(str(error).split("full_key")[0].split())
    return ConfigError(str(error.full_key or ""), f"cannot be resolved ({reason})")


def _named_as_ours(spec: RunSpec, where: tuple[str, ...]) -> RunSpec:
    """Return the specification if the type of every group matches its `name`, and raise otherwise.

    A user's own file chooses the network, optimizer, … by this name.
    """
    for group, known in our_groups().items() if where else ():
        value = getattr(spec, group, None)
        name = getattr(value, "name", None)
        if name is None or (name in known and type(value) is kind_of(group, name)):
            continue
        fits = [one for one in known if kind_of(group, one) is type(value)]
        problem = f"expected one of {', '.join(fits)}, as of the keys beside it, but got {name}"
        raise ConfigError(f"{group}.name", problem, hint="The name says which of ours it is.")
    return spec


def _refuse_unknown_add(override: Override, where: tuple[str, ...]) -> None:
    """Refuse to add or delete keys, except for arguments of user functions and a user's own groups."""
    if not (override.is_add() or override.is_force_add() or override.is_delete()):
        return
    sign, key = "~" if override.is_delete() else "+", key_of(override)
    if sign == "+" and (key.startswith(OPEN) or (key in groups(where) and key not in our_groups())):
        return
    known = [*leaf_keys(own(())), *groups(where)]
    hint = f"Write {key}=… instead." if key in known else did_you_mean(key, known)
    raise ConfigError(f"{sign}{key}", "keys can be set, but not added or deleted", hint=hint)
