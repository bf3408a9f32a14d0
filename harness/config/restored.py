"""Restore a stored run's specification, without the folders that it was composed from."""

from __future__ import annotations

import copy
from typing import Any

from omegaconf import DictConfig, OmegaConf

from harness.config.choices import own
from harness.config.composition import checked
from harness.config.overrides import assign
from harness.config.schema import OPEN, RunSpec
from harness.config.stored import flatten


def restore(mapping: dict[str, Any]) -> RunSpec:
    """Restore and validate the specification from which `to_mapping` made plain values.

    Args:
        mapping: a run's stored configuration.

    Raises:
        ConfigError: it is not a run's configuration, or comes from a version with other keys.

    Example:
        >>> from harness.config import compose, to_mapping
        >>> restore(to_mapping(compose(["optim=adam", "seed=3"]))).seed
        3
    """
    named = {group: values["name"] for group, values in mapping.items() if _named(values)}
    config = copy.deepcopy(_base(named))
    for key in OPEN:
        group, _, leaf = key.partition(".")
        values = mapping.get(group)
        if isinstance(values, dict) and leaf in values:
            assign(config, key, values[leaf])
            mapping = {**mapping, group: {name: value for name, value in values.items() if name != leaf}}
    for key, value in flatten(mapping).items():
        if not key.endswith(".name"):
            assign(config, key, value)
    return checked(config)


def _base(choices: dict[str, str]) -> DictConfig:
    """Compose these choices, leaving out default choices if that gives the same result.

    Command lines rarely name default choices, so this makes cache hits more likely.
    """
    named = [(group, f"{group}={name}") for group, name in choices.items()]
    default = own(())
    fewest = own(tuple(word for group, word in named if _chosen(default, group) != choices[group]))
    if all(_chosen(fewest, group) == name for group, name in choices.items()):
        return fewest
    return own(tuple(word for _, word in named))


def _chosen(config: DictConfig, group: str) -> Any:
    return OmegaConf.select(config, f"{group}.name")


def _named(values: Any) -> bool:
    return isinstance(values, dict) and "name" in values
