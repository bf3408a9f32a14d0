"""The YAML tree: where it lies, its groups with their choices, and the types that Hydra has of them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

from hydra.core.config_store import ConfigStore

from harness.activations.registry import OPTIONS
from harness.config.errors import ConfigError, did_you_mean
from harness.config.schema import SCHEMAS, RunSpec

OURS = "harness.sweeps.sweep.run_sweep"  # what stands for a launcher class when it is ours
HIDDEN = ("common", "schema")  # groups that only serve other groups


@dataclass
class Workers:
    """`hydra/launcher=harness`, the default: worker processes of our own, runs of one shape as cohorts."""

    _target_: str = OURS
    workers: int | None = None  # processes; null: one per core
    stack: bool = True  # whether runs of one shape train together
    cohort: int = 32  # members of a cohort at most


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
    for name, options in OPTIONS.items():
        values = {"name": name, **{option: default for option, (_, default) in options.items()}}
        kind = next(k for k in SCHEMAS["activation"].values() if {f.name for f in fields(k)} == set(values))
        store.store(name=name, node=kind(**values), group="activation")


@lru_cache(maxsize=1)
def groups() -> dict[str, list[str]]:
    """Every group and its choices, as found in the YAML tree; activations as found among the records."""
    folders = sorted(f for f in config_dir().iterdir() if f.is_dir() and f.name not in HIDDEN)
    found = {f.name: sorted(p.stem for p in f.glob("*.yaml")) for f in folders}
    return dict(sorted({**found, "activation": sorted(OPTIONS)}.items()))


def is_group(text: str) -> bool:
    """Whether an override chooses in a group."""
    key = text.split("=", 1)[0].split("@", 1)[0].lstrip("+~")
    return key in groups()


def check_choice(choice: str) -> None:
    """Refuse what is no choice of its group.

    Raises:
        ConfigError: with the choices that there are.
    """
    group, _, name = choice.partition("=")
    known = groups().get(group)
    if known is not None and name not in known and (group, name) != ("experiment", "null"):
        raise ConfigError(
            group, expected=f"one of {', '.join(known)}", came=name, hint=did_you_mean(name, known)
        )
