"""From a command line to a checked RunSpec, its run id and its folder; no torch.

Hydra is imported with the first command line that is composed: workers, which get specifications, need none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.config.errors import ConfigError, did_you_mean
from harness.config.identity import run_folder, run_id
from harness.config.schema import RunSpec
from harness.config.stored import flatten, to_mapping
from harness.lazily import lazily

if TYPE_CHECKING:
    from harness.config.command import changes, command_of, overrides_of
    from harness.config.composition import asks_for_sweep, checked, compose, jobs_of, launcher, plan, restore
    from harness.config.tree import OURS, config_dir, groups, register_schema

__all__ = [
    "OURS",
    "ConfigError",
    "RunSpec",
    "asks_for_sweep",
    "changes",
    "checked",
    "command_of",
    "compose",
    "config_dir",
    "did_you_mean",
    "flatten",
    "groups",
    "jobs_of",
    "launcher",
    "overrides_of",
    "plan",
    "register_schema",
    "restore",
    "run_folder",
    "run_id",
    "to_mapping",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        **dict.fromkeys(
            ("asks_for_sweep", "checked", "compose", "jobs_of", "launcher", "plan", "restore"),
            "harness.config.composition",
        ),
        **dict.fromkeys(("changes", "command_of", "overrides_of"), "harness.config.command"),
        **dict.fromkeys(("OURS", "config_dir", "groups", "register_schema"), "harness.config.tree"),
    },
)
