"""Hydra's overrides → checked RunSpecs, or one ConfigError that names the key.

Hydra composes each distinct choice of groups once; plain values are then set one at a time, so that
the culprit of an error is known and a sweep of hundreds of jobs is planned in a second.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import lru_cache
from typing import Any, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, RangeSweep
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from harness.config.errors import ConfigError, did_you_mean
from harness.config.overrides import is_hydras, key_of, leaf_keys, parse, parse_one, set_value
from harness.config.ranges import check_ranges, check_together, check_value
from harness.config.schema import RunSpec
from harness.config.stored import flatten
from harness.config.tree import OURS, check_choice, config_dir, groups, is_group, register_schema

PLUGINS = ("hydra_plugins.", "hydra._internal.core_plugins.")  # where Hydra takes launchers from
MOST_JOBS = 1_000_000


def launcher(overrides: Sequence[str]) -> Any:
    """Hydra's launcher node for a command line.

    Raises:
        ConfigError: an option of our own launcher that is out of range, or something that is Hydra's is
            swept over.
    """
    for override in parse(overrides):
        key = key_of(override)
        if is_hydras(override) and (override.is_sweep_override() or key.startswith("hydra.sweeper.params")):
            raise ConfigError(key, "cannot be swept over or hold a sweep: it is Hydra's, not a run's")
    node = _composed(_single_choices(overrides)).hydra.launcher
    target = str(node.get("_target_"))
    if not target.startswith((OURS, *PLUGINS)):
        raise ConfigError(
            "hydra.launcher._target_", expected="a launcher's, as Hydra finds them", came=target
        )
    for name in ("workers", "cohort") if node.get("_target_") == OURS else ():
        if node[name] is not None and node[name] < 1:
            raise ConfigError(f"hydra.launcher.{name}", expected="a whole number above 0", came=node[name])
    return node


def jobs_of(overrides: Sequence[str]) -> list[list[str]]:
    """The command line of every job of a sweep, in Hydra's order."""
    return _cartesian(overrides)


def compose(overrides: Sequence[str] = ()) -> RunSpec:
    """One run from Hydra overrides.

    Args:
        overrides: as on the command line, e.g. ["model=cnn", "optim.lr=0.01"].

    Returns:
        The checked specification.

    Raises:
        ConfigError: an unknown key, a wrong type, a value out of range, a missing value.

    Example:
        >>> compose(["optim=adam", "optim.lr=0.01"]).optim.lr
        0.01
    """
    jobs = plan(overrides, multirun=False)
    return jobs[0]


def plan(overrides: Sequence[str], *, multirun: bool) -> list[RunSpec]:
    """Every run that a command line asks for, composed and checked, in Hydra's order.

    Raises:
        ConfigError: as `compose`; also for a sweep without `multirun`.
    """
    own = [o for o in parse(overrides) if not o.get_key_element().lstrip("+~").startswith("hydra")]
    for override in own:
        _refuse_unknown_add(override)
    if not multirun:
        for override in own:
            if override.is_sweep_override():
                raise ConfigError(
                    key_of(override),
                    expected="one value",
                    came=str(override.input_line).partition("=")[2],
                    hint="Add -m to run them all.",
                )
        return [_one(tuple(overrides))]
    jobs = _cartesian(overrides)
    return [_one(tuple(job)) for job in jobs]


def asks_for_sweep(overrides: Sequence[str]) -> bool:
    """Whether the configuration itself (an experiment, say) asks for a sweep."""
    mode = _composed(_single_choices(overrides)).hydra.mode
    return mode is not None and mode.name == "MULTIRUN"


def _one(overrides: tuple[str, ...]) -> RunSpec:
    """One job: groups by Hydra (cached), values in process."""
    parsed = parse(overrides)
    choices = tuple(text for text, o in zip(overrides, parsed, strict=True) if is_group(text) or is_hydras(o))
    values = [text for text in overrides if text not in choices]
    base = _base(choices)
    if base is None or any("${" in text for text in values):
        config = copy.deepcopy(_own(choices))
        for text in values:
            set_value(config, parse_one(text))
        return checked(config)
    spec = base
    for text in values:
        spec = _with(spec, *_typed(choices, text))
    if values:
        check_together(spec)
    return spec


@lru_cache(maxsize=256)
def _base(choices: tuple[str, ...]) -> RunSpec | None:
    """The run of the group choices alone; None where a value must still be given."""
    config = _own(choices)
    return None if OmegaConf.missing_keys(config) else checked(config)


@lru_cache(maxsize=2**16)
def _typed(choices: tuple[str, ...], text: str) -> tuple[str, Any]:
    """Dotted key and checked value of a plain override; nothing in a run's values refers to another."""
    config, override = _scratch(choices), parse_one(text)
    set_value(config, override)
    key = key_of(override)
    parent, _, leaf = key.rpartition(".")
    try:
        value = OmegaConf.select(config, key)
    except OmegaConfBaseException as error:
        raise _unresolved(error) from None
    if value is None and key in OmegaConf.missing_keys(config):
        raise ConfigError(key, "a value is needed", hint=f"Give it with {key}=…")
    value = OmegaConf.to_object(value) if OmegaConf.is_config(value) else value
    owner: Any = _base(choices)
    for name in parent.split(".") if parent else ():
        owner = getattr(owner, name)
    check_value(key, next(item for item in fields(owner) if item.name == leaf), value)
    return key, value


@lru_cache(maxsize=256)
def _scratch(choices: tuple[str, ...]) -> DictConfig:
    return copy.deepcopy(_own(choices))


def _with(spec: Any, key: str, value: Any) -> Any:
    """A copy of a nested dataclass with one value changed; what is not on the way is shared."""
    name, _, rest = key.partition(".")
    return replace(spec, **{name: _with(getattr(spec, name), rest, value) if rest else value})


def checked(config: DictConfig) -> RunSpec:
    """A composed configuration as a RunSpec.

    Raises:
        ConfigError: a missing value, or one out of range.
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
    """An interpolation that leads nowhere, or to what the key cannot be."""
    reason = " ".join(str(error).split("full_key")[0].split())
    return ConfigError(str(error.full_key or ""), f"cannot be resolved ({reason})")


@lru_cache(maxsize=256)
def _own(choices: tuple[str, ...]) -> DictConfig:
    """The composition without Hydra's node."""
    config = copy.deepcopy(_composed(choices))
    with open_dict(config):
        del config["hydra"]
    return config


@lru_cache(maxsize=256)
def _composed(choices: tuple[str, ...]) -> DictConfig:
    """Hydra's composition of the group choices, Hydra's own node included."""
    register_schema()
    for choice in choices:
        check_choice(choice)
    try:
        with initialize_config_dir(str(config_dir()), version_base="1.3", job_name="harness"):
            return hydra_compose("config", list(choices), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, AssertionError) as error:
        # Hydra says which override it was, its cause says why
        reason = " ".join(f"{error} {str(error.__cause__ or '').split('full_key')[0]}".split())
        raise ConfigError("", f"cannot compose {' '.join(choices)}: {reason}") from error


def _refuse_unknown_add(override: Override) -> None:
    if not (override.is_add() or override.is_force_add() or override.is_delete()):
        return
    sign, key = "~" if override.is_delete() else "+", key_of(override)
    known = [*leaf_keys(_own(())), *groups()]
    hint = f"Write {key}=… instead." if key in known else did_you_mean(key, known)
    raise ConfigError(f"{sign}{key}", "keys can be set, but not added or deleted", hint=hint)


def _cartesian(overrides: Sequence[str]) -> list[list[str]]:
    """Hydra's own expansion of a sweep (its basic sweeper's), experiments' params included."""
    params = _composed(_single_choices(overrides)).hydra.sweeper.get("params") or {}
    kept = [o for o in overrides if o.startswith("hydra.")]
    swept = [*(f"{key}={value}" for key, value in params.items()), *(o for o in overrides if o not in kept)]
    _refuse_too_many(swept)
    with initialize_config_dir(str(config_dir()), version_base="1.3", job_name="harness"):
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        try:
            batches = BasicSweeper.split_arguments(parser.parse_overrides(swept), None)
        except HydraException as error:
            raise ConfigError("", f"cannot sweep ({error})", hint="Use a,b,c or range() or glob().") from None
    jobs = [[*job, *kept] for batch in batches for job in batch]
    if not jobs:
        raise ConfigError("", f"the sweep {' '.join(overrides)} has no runs")
    return jobs


def _refuse_too_many(swept: Sequence[str]) -> None:
    """Count the jobs before they are made."""
    jobs = 1
    for override in parse(swept):
        value = override.value()
        if isinstance(value, ChoiceSweep):
            jobs *= max(1, len(value.list))
        elif isinstance(value, RangeSweep) and value.stop is not None and value.step:
            jobs *= max(1, math.ceil((value.stop - (value.start or 0)) / value.step))
        if jobs > MOST_JOBS:
            raise ConfigError(
                key_of(override), expected=f"a sweep of at most {MOST_JOBS:,} runs", came=f"{jobs:,}"
            )


def _single_choices(overrides: Sequence[str]) -> tuple[str, ...]:
    """The group choices that are not swept over, and Hydra's own overrides."""
    return tuple(
        text
        for text, override in zip(overrides, parse(overrides), strict=True)
        if not override.is_sweep_override() and (is_group(text) or is_hydras(override))
    )


def restore(mapping: dict[str, Any]) -> RunSpec:
    """The specification that `to_mapping` made plain values of, checked anew.

    Args:
        mapping: a run's stored configuration.

    Raises:
        ConfigError: it is not one, or of a version with other keys.

    Example:
        >>> from harness.config import to_mapping
        >>> restore(to_mapping(compose(["optim=adam", "seed=3"]))).seed
        3
    """
    choices = [f"{group}={values['name']}" for group, values in mapping.items() if _named(values)]
    values = {key: value for key, value in flatten(mapping).items() if not key.endswith(".name")}
    return compose([*choices, *(f"{key}={grammar_word(value)}" for key, value in values.items())])


def _named(values: Any) -> bool:
    return isinstance(values, dict) and "name" in values


def grammar_word(value: Any) -> str:
    """A plain value as Hydra's grammar has it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(grammar_word(inner) for inner in value)}]"
    if isinstance(value, str):
        end = len(value) - len(value.rstrip("\\"))  # only those before a quote are escapes
        return "'" + value.replace("'", "\\'") + "\\" * end + "'"
    return repr(value)
