"""Our YAML tree: its location, its groups with their choices, and their types in Hydra."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from harness.activations.registry import OPTIONS
from harness.config.schema import LIKE, OPEN, SCHEMAS, RunSpec

PRIMARY = "config"  # the primary configuration
PROVIDER = "harness"  # of our tree and its types, in Hydra's words
OURS = "harness.sweeps.sweep.run_sweep"  # `_target_` of our own launcher
HIDDEN = ("common", "schema")  # internal groups


@dataclass
class Workers:
    """`hydra/launcher=harness`, the default: worker processes of our own, runs of one shape as cohorts."""

    _target_: str = OURS
    workers: int | None = None  # processes; null: one per core
    stack: bool = True  # whether runs of one shape train together
    cohort: int | None = None  # members of a cohort at most; null: 32 on a CPU, what fits on a GPU


def config_dir() -> Path:
    """Return the folder of the YAML tree: inside an installed package, or next to it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_configs"
    return installed if installed.is_dir() else package.parent / "configs"


def register_schema() -> None:
    """Put what is missing of the typed schema into Hydra's ConfigStore: a node takes milliseconds to make."""
    _put("hydra/launcher", "harness", lambda: Workers)
    _put("schema", "run", lambda: RunSpec, package="_global_")
    for group, choices in SCHEMAS.items():
        for name, kind in choices.items():
            _put(f"schema/{group}", name, partial(_node, group, kind))
    for name in OPTIONS:
        _put("activation", name, partial(choice, "activation", name))


def _put(group: str, name: str, make: Callable[[], Any], package: str | None = None) -> None:
    store = ConfigStore.instance()
    found: Any = store.repo
    for part in (*group.split("/"), f"{name}.yaml"):
        found = found.get(part, {})
    if getattr(found, "provider", None) != PROVIDER:  # missing, or replaced by another application of Hydra
        store.store(name=name, node=make(), group=group, package=package, provider=PROVIDER)


def _node(group: str, kind: type) -> Any:
    node = OmegaConf.structured(kind)
    if f"{group}.args" in OPEN and "args" in node:
        node.args._set_flag("struct", False)  # lets Hydra accept any key there without a +
    return node


def kind_of(group: str, name: str) -> type:
    """Return the class of one of our choices.

    Example:
        >>> kind_of("optim", "adamw").__name__, kind_of("init", "rai").__name__
        ('Adam', 'Init')
    """
    kinds = SCHEMAS[group]
    if group == "activation":
        keys = {"name", *OPTIONS[name]}
        for kind in kinds.values():
            if {f.name for f in fields(kind)} == keys:
                return kind
        raise TypeError(
            f"the activation {name!r} has options that no class of harness.config.schema has: expected one "
            f"with the fields {', '.join(sorted(keys))}; add it there, or leave `options` of the record out"
        )
    return kinds.get(LIKE.get(name, name)) or next(iter(kinds.values()))


@lru_cache(maxsize=256)
def choice(group: str, name: str) -> Any:
    """Return one of our choices with its defaults, like Hydra's composition but 100 times faster.

    Args:
        group: a group whose files include only the schema: activation, init, bias, schedule, remedy.
        name: name of the choice.

    Example:
        >>> choice("schedule", "warmup").steps
        100
    """
    kind = OmegaConf.structured(kind_of(group, name))
    if group == "activation":
        values: Any = {"name": name} | {option: default for option, (_, default) in OPTIONS[name].items()}
    else:
        values = OmegaConf.load(config_dir() / group / f"{name}.yaml")
        del values["defaults"]
    return OmegaConf.to_object(OmegaConf.merge(kind, values))


@lru_cache(maxsize=1)
def our_groups() -> dict[str, list[str]]:
    """Return all groups with their choices from the YAML tree; activations come from the registry."""
    folders = sorted(f for f in config_dir().iterdir() if f.is_dir() and f.name not in HIDDEN)
    found = {f.name: sorted(p.stem for p in f.glob("*.yaml")) for f in folders}
    return dict(sorted({**found, "activation": sorted(OPTIONS)}.items()))
