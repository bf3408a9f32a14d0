"""From a command line to a checked RunSpec, its run id and its folder; no torch."""

from harness.config.compose import (
    OURS,
    asks_for_sweep,
    checked,
    compose,
    config_dir,
    groups,
    jobs_of,
    launcher,
    plan,
    register_schema,
    restore,
)
from harness.config.errors import ConfigError, did_you_mean
from harness.config.identity import run_folder, run_id
from harness.config.schema import RunSpec
from harness.config.stored import flatten, to_mapping

__all__ = [
    "OURS",
    "ConfigError",
    "RunSpec",
    "asks_for_sweep",
    "checked",
    "compose",
    "config_dir",
    "did_you_mean",
    "flatten",
    "groups",
    "jobs_of",
    "launcher",
    "plan",
    "register_schema",
    "restore",
    "run_folder",
    "run_id",
    "to_mapping",
]
