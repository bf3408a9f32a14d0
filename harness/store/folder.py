"""The folder of one run: who it is, how far it got, and its tables."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from harness.store.files import read_json, write_json, write_text

STATUSES = ("running", "finished", "diverged", "failed", "interrupted")
COMPLETE = ("finished", "diverged")  # results that are not trained again
KEY = re.compile(r"\w+:(\s|$)")  # of a mapping, at the start of a line


class RunFolder:
    """`config.yaml`, `status.json` and the tables of a run.

    Args:
        path: made if it is not there.

    Raises:
        OSError: the folder cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def write_config(self, config: dict[str, Any]) -> None:
        dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # the same text in a tenth of the time
        write_text(self.path / "config.yaml", yaml.dump(config, Dumper=dumper, sort_keys=False))

    def write_status(self, state: str, **facts: Any) -> None:
        """Replace the status, keeping facts that are not given anew.

        Raises:
            ValueError: an unknown state.
        """
        if state not in STATUSES:
            raise ValueError(f"status: expected one of {', '.join(STATUSES)}, but got {state!r}")
        earlier = read_status(self.path) or {}
        write_json(self.path / "status.json", {**earlier, "state": state, **facts})

    @property
    def status(self) -> dict[str, Any]:
        return read_status(self.path) or {}

    def clear(self) -> None:
        """Remove what an earlier training left; the folder and its configuration stay."""
        for name in ("status.json", "checkpoint.pt", "error.txt"):
            (self.path / name).unlink(missing_ok=True)
        for pattern in ("*.arrows", "*.parquet", "events.out.tfevents.*", ".*.part"):
            for file in self.path.glob(pattern):
                file.unlink(missing_ok=True)


def read_status(path: Path) -> dict[str, Any] | None:
    return read_json(path / "status.json")


def read_config(path: Path) -> dict[str, Any]:
    """The run's configuration, nested; empty if there is none."""
    try:
        text = (path / "config.yaml").read_text(encoding="utf-8")
        groups = top_level(text)
        if groups is None:
            whole = _load(text)
            return whole if isinstance(whole, dict) else {}
        return {key: _copy(value) for group in groups for key, value in _parsed(group).items()}
    except (OSError, ValueError, yaml.YAMLError):
        return {}


def top_level(text: str) -> list[str] | None:
    r"""The groups of a YAML mapping, each of which can be read by itself; None if that is not sure.

    Example:
        >>> top_level("optim:\n  lr: 0.1\nseed: 0\n")
        ['optim:\n  lr: 0.1\n', 'seed: 0\n']
    """
    if any(mark in text for mark in "&*!\t"):  # anchors, aliases, tags
        return None
    groups: list[str] = []
    for line in text.splitlines(keepends=True):
        if KEY.match(line):
            groups.append(line)
        elif groups and line.startswith((" ", "- ", "\n")):
            groups[-1] += line
        else:
            return None
    return groups


def _copy(value: Any) -> Any:
    """Plain nested values anew, so that no two runs share one."""
    if isinstance(value, dict):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value


@lru_cache(maxsize=65_536)
def _parsed(group: str) -> dict[str, Any]:
    """The runs of a sweep share most groups, and YAML is slow to read."""
    return _load(group)


def _load(text: str) -> Any:
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
