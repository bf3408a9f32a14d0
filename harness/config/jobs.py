"""Expand a sweep's command line into those of its jobs, and read Hydra's node for its launcher."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, RangeSweep
from hydra.errors import HydraException

from harness.config.choices import composed, single_choices
from harness.config.errors import ConfigError
from harness.config.overrides import is_hydras, key_of, parse
from harness.config.search_path import composing, is_option, joined
from harness.config.tree import OURS

PLUGINS = ("hydra_plugins.", "hydra._internal.core_plugins.")  # packages of Hydra's launchers
MOST_JOBS = 1_000_000
FOLDERS = ("hydra.run", "hydra.sweep", "hydra.job.chdir", "hydra.output_subdir")  # what `output` decides


def launcher(words: Sequence[str]) -> Any:
    """Return Hydra's launcher node for a command line.

    Raises:
        ConfigError: an option of our launcher is out of range, the launcher is unknown, or one of Hydra's own
            keys is swept over.
    """
    words = joined(words)
    for override in parse(words):
        key = key_of(override)
        if is_hydras(override) and (override.is_sweep_override() or key.startswith("hydra.sweeper.params")):
            raise ConfigError(key, "cannot be swept over or hold a sweep: it is Hydra's, not a run's")
    node = composed(single_choices(words)).hydra.launcher
    target = str(node.get("_target_"))
    if not target.startswith((OURS, *PLUGINS)):
        raise ConfigError(
            "hydra.launcher._target_", expected="a launcher's, as Hydra finds them", came=target
        )
    for name in ("workers", "cohort") if node.get("_target_") == OURS else ():
        if node[name] is not None and node[name] < 1:
            raise ConfigError(f"hydra.launcher.{name}", expected="a whole number above 0", came=node[name])
    return node


def refuse_folders(words: Sequence[str]) -> None:
    """Refuse Hydra's settings of folders, which would have no effect.

    Raises:
        ConfigError: there is one.
    """
    for override in parse(joined(words)):
        key = key_of(override)
        if any(key == name or key.startswith(f"{name}.") for name in FOLDERS):
            raise ConfigError(key, "has no effect: a run's folder is output/<name>", hint="Give output=…")


def asks_for_sweep(words: Sequence[str]) -> bool:
    """Whether the configuration itself (for example an experiment) requests a sweep."""
    mode = composed(single_choices(joined(words))).hydra.mode
    return mode is not None and mode.name == "MULTIRUN"


def jobs_of(words: Sequence[str]) -> list[list[str]]:
    """Return the command line of every job of a sweep, in the order of Hydra's basic sweeper.

    The sweep includes what an experiment sweeps over (`hydra.sweeper.params`).

    Raises:
        ConfigError: the sweep cannot be expanded, or has no jobs or too many.
    """
    words = joined(words)
    choices = single_choices(words)
    params = composed(choices).hydra.sweeper.get("params") or {}
    kept = [word for word in words if is_option(word) or word.startswith("hydra.")]
    swept = [*(f"{key}={value}" for key, value in params.items()), *(w for w in words if w not in kept)]
    _refuse_too_many(swept)
    with composing(choices) as loader:
        parser = OverridesParser.create(config_loader=loader)
        try:
            batches = BasicSweeper.split_arguments(parser.parse_overrides(swept), None)
        except HydraException as error:
            raise ConfigError("", f"cannot sweep ({error})", hint="Use a,b,c or range() or glob().") from None
    jobs = [[*job, *kept] for batch in batches for job in batch]
    if not jobs:
        raise ConfigError("", f"the sweep {' '.join(words)} has no runs")
    return jobs


def _refuse_too_many(swept: Sequence[str]) -> None:
    """Refuse sweeps with too many jobs before expanding them."""
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
