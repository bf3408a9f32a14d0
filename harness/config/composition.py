"""Hydra's overrides → checked RunSpecs, or one ConfigError that names the key.

Hydra composes each distinct choice of groups once; plain values are then set one at a time, so that
the culprit of an error is known and a sweep of hundreds of jobs is planned in a second.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException, ValidationError

from harness.config.errors import ConfigError, did_you_mean
from harness.config.ranges import check_ranges, check_together, check_value
from harness.config.schema import SCHEMAS, RunSpec
from harness.config.stored import flatten
from harness.config.words import expectation

OURS = "harness.sweeps.sweep.run_sweep"  # what stands for a launcher class when it is ours
HIDDEN = ("common", "schema")  # groups that only serve other groups


@dataclass
class Workers:
    """`hydra/launcher=harness`, the default: worker processes of our own, runs of one shape as cohorts."""

    _target_: str = OURS
    workers: int | None = None  # processes; null: one per core
    stack: bool = True  # whether runs of one shape train together
    cohort: int = 32  # members of a cohort at most


def launcher(overrides: Sequence[str]) -> Any:
    """Hydra's launcher node for a command line.

    Raises:
        ConfigError: an option of our own launcher that is out of range.
    """
    node = _composed(_single_choices(overrides)).hydra.launcher
    for name in ("workers", "cohort") if node.get("_target_") == OURS else ():
        if node[name] is not None and node[name] < 1:
            raise ConfigError(f"hydra.launcher.{name}", expected="a whole number above 0", came=node[name])
    return node


def jobs_of(overrides: Sequence[str]) -> list[list[str]]:
    """The command line of every job of a sweep, in Hydra's order."""
    return _cartesian(overrides)


def config_dir() -> Path:
    """The folder of the YAML tree: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_configs"
    return installed if installed.is_dir() else package.parent / "configs"


def register_schema() -> None:
    """Put the typed schema into Hydra's ConfigStore (idempotent)."""
    store = ConfigStore.instance()
    store.store(name="harness", node=Workers, group="hydra/launcher", provider="harness")
    store.store(name="run", node=RunSpec, group="schema", package="_global_")
    for group, choices in SCHEMAS.items():
        for name, node in choices.items():
            store.store(name=name, node=node, group=f"schema/{group}")


@lru_cache(maxsize=1)
def groups() -> dict[str, list[str]]:
    """Every group and its choices, as found in the YAML tree."""
    folders = sorted(f for f in config_dir().iterdir() if f.is_dir() and f.name not in HIDDEN)
    return {f.name: sorted(p.stem for p in f.glob("*.yaml")) for f in folders}


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
    own = [o for o in _parse(overrides) if not o.get_key_element().lstrip("+~").startswith("hydra")]
    for override in own:
        _refuse_unknown_add(override)
    if not multirun:
        for override in own:
            if override.is_sweep_override():
                raise ConfigError(
                    _key(override),
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
    parsed = _parse(overrides)
    choices = tuple(text for text, o in zip(overrides, parsed, strict=True) if _is_group(text) or _hydras(o))
    values = [text for text in overrides if text not in choices]
    base = _base(choices)
    if base is None or any("${" in text for text in values):
        config = copy.deepcopy(_own(choices))
        for text in values:
            _set(config, _parse_one(text))
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
    config, override = _scratch(choices), _parse_one(text)
    _set(config, override)
    key = _key(override)
    parent, _, leaf = key.rpartition(".")
    value = OmegaConf.select(config, key)
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
    except OmegaConfBaseException as error:  # an interpolation that leads nowhere
        reason = " ".join(str(error).split("full_key")[0].split())
        raise ConfigError(str(error.full_key or ""), f"cannot be resolved ({reason})") from None
    check_ranges(spec)
    check_together(spec)
    return spec


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
        _check_choice(choice)
    try:
        with initialize_config_dir(str(config_dir()), version_base="1.3", job_name="harness"):
            return hydra_compose("config", list(choices), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())
        raise ConfigError("", f"cannot compose {' '.join(choices)}: {reason}") from error


def _check_choice(choice: str) -> None:
    group, _, name = choice.partition("=")
    known = groups().get(group)
    if known is not None and name not in known and (group, name) != ("experiment", "null"):
        raise ConfigError(
            group, expected=f"one of {', '.join(known)}", came=name, hint=did_you_mean(name, known)
        )


def _parse(overrides: Sequence[str]) -> list[Override]:
    return [_parse_one(text) for text in overrides]


@lru_cache(maxsize=2**16)
def _parse_one(text: str) -> Override:
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError("", f"cannot read {text!r} ({reason})", hint="Write key=value.") from None


def _key(override: Override) -> str:
    return override.key_or_group


def _is_group(text: str) -> bool:
    key = text.split("=", 1)[0].split("@", 1)[0].lstrip("+~")
    return key in groups()


def _hydras(override: Override) -> bool:
    return override.key_or_group.split("@", 1)[0].split(".", 1)[0].split("/", 1)[0] == "hydra"


def _refuse_unknown_add(override: Override) -> None:
    if not (override.is_add() or override.is_force_add() or override.is_delete()):
        return
    sign, key = "~" if override.is_delete() else "+", _key(override)
    known = [*_leaf_keys(_own(())), *groups()]
    hint = f"Write {key}=… instead." if key in known else did_you_mean(key, known)
    raise ConfigError(f"{sign}{key}", "keys can be set, but not added or deleted", hint=hint)


def _set(config: DictConfig, override: Override) -> None:
    """Set one plain value, or say which key cannot take it."""
    key, value = _key(override), override.value()
    parent, _, leaf = key.rpartition(".")
    node: Any = OmegaConf.select(config, parent) if parent else config
    known = _leaf_keys(config)
    if leaf == "name" and parent in groups():
        raise ConfigError(key, "the choice is made by the group", hint=f"Write {parent}={value}.")
    if (
        not isinstance(node, DictConfig)
        or leaf not in list(node)
        or isinstance(node._get_node(leaf), DictConfig)
    ):
        if key in {k.rpartition(".")[0] for k in known}:
            raise ConfigError(
                key, "this is a group", hint=f"Choose with {key}=choice or set {key}.name_of_a_key=value."
            )
        siblings = [k for k in known if k.startswith(f"{parent}.")] if parent else []
        near = did_you_mean(key, [*known, *groups()])
        choice = getattr(node, "get", lambda *_: None)("name") if parent else None
        own = ", ".join(k.rsplit(".", 1)[1] for k in siblings) or "no values"
        there = f"{parent}={choice} has {own}." if choice else ""
        raise ConfigError(key, "there is no such key", hint=" ".join(filter(None, (near, there))))
    try:
        with open_dict(config):
            OmegaConf.update(config, key, value, merge=True)
    except (ValidationError, OmegaConfBaseException) as error:
        raise ConfigError(key, expected=expectation(node, leaf), came=_shown(value)) from error


def _leaf_keys(config: DictConfig, prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name in config:
        node = config._get_node(str(name))
        if name in ("hydra", "name"):
            continue
        path = f"{prefix}{name}"
        keys += _leaf_keys(node, f"{path}.") if isinstance(node, DictConfig) else [path]
    return keys


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    return f"{value!r}" if isinstance(value, str) else f"{value}"


def _cartesian(overrides: Sequence[str]) -> list[list[str]]:
    """Hydra's own expansion of a sweep (its basic sweeper's), experiments' params included."""
    params = _composed(_single_choices(overrides)).hydra.sweeper.get("params") or {}
    kept = [o for o in overrides if o.startswith("hydra.")]
    swept = [*(f"{key}={value}" for key, value in params.items()), *(o for o in overrides if o not in kept)]
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


def _single_choices(overrides: Sequence[str]) -> tuple[str, ...]:
    """The group choices that are not swept over, and Hydra's own overrides."""
    return tuple(
        text
        for text, override in zip(overrides, _parse(overrides), strict=True)
        if not override.is_sweep_override() and (_is_group(text) or _hydras(override))
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
    return compose([*choices, *(f"{key}={_word(value)}" for key, value in values.items())])


def _named(values: Any) -> bool:
    return isinstance(values, dict) and "name" in values


def _word(value: Any) -> str:
    """A plain value as Hydra's grammar has it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(_word(inner) for inner in value)}]"
    if isinstance(value, str):
        end = len(value) - len(value.rstrip("\\"))  # only those before a quote are escapes
        return "'" + value.replace("'", "\\'") + "\\" * end + "'"
    return repr(value)
