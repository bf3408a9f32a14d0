"""Turn a command line into a validated RunSpec, its run id and its folder, without torch.

Hydra is imported only when a command line is composed; workers receive specifications and do not need it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.config.errors import ConfigError, did_you_mean
from harness.config.identity import run_folder, run_id
from harness.config.schema import RunSpec
from harness.config.stored import flatten, to_mapping
from harness.lazy_imports import lazy_imports

if TYPE_CHECKING:
    from harness.config.command import changes, command_of, overrides_of
    from harness.config.composition import checked, compose, plan, shown
    from harness.config.explanation import explain
    from harness.config.jobs import asks_for_sweep, jobs_of, launcher, refuse_folders
    from harness.config.restored import restore
    from harness.config.search_path import groups, is_option, joined, places, prepare, value_of
    from harness.config.tree import OURS, PRIMARY, config_dir

__all__ = [
    "OURS",
    "PRIMARY",
    "ConfigError",
    "RunSpec",
    "asks_for_sweep",
    "changes",
    "checked",
    "command_of",
    "compose",
    "config_dir",
    "did_you_mean",
    "explain",
    "flatten",
    "groups",
    "is_option",
    "jobs_of",
    "joined",
    "launcher",
    "overrides_of",
    "places",
    "plan",
    "prepare",
    "refuse_folders",
    "restore",
    "run_folder",
    "run_id",
    "shown",
    "to_mapping",
    "value_of",
]

__getattr__, __dir__ = lazy_imports(
    __name__,
    {
        **dict.fromkeys(("checked", "compose", "plan", "shown"), "harness.config.composition"),
        **dict.fromkeys(("asks_for_sweep", "jobs_of", "launcher", "refuse_folders"), "harness.config.jobs"),
        "restore": "harness.config.restored",
        "explain": "harness.config.explanation",
        **dict.fromkeys(
            ("groups", "is_option", "joined", "places", "prepare", "value_of"), "harness.config.search_path"
        ),
        **dict.fromkeys(("changes", "command_of", "overrides_of"), "harness.config.command"),
        **dict.fromkeys(("OURS", "PRIMARY", "config_dir"), "harness.config.tree"),
    },
)
