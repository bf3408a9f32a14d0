"""The folder of one run: who it is, how far it got, and its tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from harness.store.files import read_json, write_json, write_text

STATUSES = ("running", "finished", "diverged", "failed", "interrupted")
COMPLETE = ("finished", "diverged")  # results that are not trained again


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
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        with (path / "config.yaml").open(encoding="utf-8") as file:
            return yaml.load(file, loader) or {}
    except (OSError, yaml.YAMLError):
        return {}
