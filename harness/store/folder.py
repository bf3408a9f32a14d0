"""The folder of one run: its configuration, status and tables."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from harness.store.digests import DIGEST_KEY, TABLES_KEY, digest, status_digest, table_digests
from harness.store.files import write_json, write_text
from harness.store.reading import DamagedFile, Types, checked, one_line, read_object, read_text

STATUSES = ("running", "finished", "diverged", "failed", "interrupted")
COMPLETE = ("finished", "diverged")  # states that count as a result
LARGEST = 1 << 20  # largest size of a configuration in bytes, because YAML is slow to read
NUMBER = (int, float)
MADE = "recorder"  # key that marks runs a Recorder made in a user's loop; a Recorder may overwrite these
SHARES = ("dead_fraction", "born_dead_fraction", "died_fraction", "accuracy")  # final metrics in [0, 1]
COUNTED = ("dead", "starved", "rare", "born_dead", "died", "revived")  # final metrics that count units
NOT_NEGATIVE = ("steps", "diverged_at", "seconds", "census_seconds")
STATUS: Types = {
    "state": (str,),
    "final": (dict,),
    "error": (str,),
    "verdict": (str,),
    "diagnosis": (str,),
    "not_stacked": (str,),
    "stopped": (str,),
    "steps": (int,),
    "diverged_at": (int,),
    "seconds": NUMBER,
    "census_seconds": NUMBER,
}
CONFIG: Types = {
    "seed": (int,),
    "detect": (dict,),
    **{f"detect.{name}": NUMBER for name in ("rare", "confidence", "healthy")},
}
KEY = re.compile(r"\w+:(\s|$)")  # key of a mapping at the start of a line


class RunFolder:
    """`config.yaml`, `status.json` and the tables of a run.

    Args:
        path: the folder; created if it does not exist.

    Raises:
        OSError: the folder cannot be created.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def write_config(self, config: dict[str, Any]) -> None:
        dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # same text, ten times as fast
        write_text(self.path / "config.yaml", yaml.dump(config, Dumper=dumper, sort_keys=False))

    def begin(self, **facts: Any) -> None:
        """Start a new training, dropping all facts of an earlier one from the status."""
        self._write("running", facts)

    def write_status(self, state: str, **facts: Any) -> None:
        """Update the status, keeping earlier facts that are not given.

        Raises:
            ValueError: the state is unknown.
        """
        if state not in STATUSES:
            raise ValueError(f"status: expected one of {', '.join(STATUSES)}, but got {state!r}")
        self._write(state, {**(read_status(self.path) or {}), **facts})

    def _write(self, state: str, facts: dict[str, Any]) -> None:
        status = {**facts, "state": state}
        if (self.path / "config.yaml").is_file():
            status["config"] = config_digest(self.path)
        # the tables of a running run are about to change
        status[TABLES_KEY] = {} if state == "running" else table_digests(self.path)
        self._write_whole(status)

    def add_tables(self, *names: str) -> None:
        """Add digests of tables that were written after the run's end."""
        status = read_status(self.path)
        if status is not None and status.get(TABLES_KEY):
            found = table_digests(self.path)
            added = {name: found[name] for name in names if name in found}
            self._write_whole({**status, TABLES_KEY: {**status[TABLES_KEY], **added}})

    def _write_whole(self, status: dict[str, Any]) -> None:
        plain = json.loads(json.dumps(status))  # the digest must match the status as read
        write_json(self.path / "status.json", {**plain, DIGEST_KEY: status_digest(plain)})

    @property
    def status(self) -> dict[str, Any]:
        return read_status(self.path) or {}

    def clear(self) -> None:
        """Remove the files of an earlier training, but not the folder and its configuration."""
        for name in ("status.json", "checkpoint.pt", "error.txt"):
            (self.path / name).unlink(missing_ok=True)
        self.clear_tables()

    def clear_tables(self) -> None:
        """Remove only tables and TensorBoard's event files."""
        for pattern in ("*.arrows", "*.parquet", "events.out.tfevents.*", ".*.part"):
            for file in self.path.glob(pattern):
                file.unlink(missing_ok=True)


def load_status(path: Path) -> dict[str, Any]:
    """Read the run's status.

    Raises:
        FileNotFoundError: there is none.
        DamagedFile: it is not a valid status, or belongs to another configuration.
    """
    file = path / "status.json"
    status = read_object(file, STATUS)
    if status.get("state") not in STATUSES:
        raise DamagedFile(file, f"has no state among {', '.join(STATUSES)}")
    if status.get("config", (digest := config_digest(path))) != digest:
        raise DamagedFile(file, "is of another configuration than the one beside it")
    for name in NOT_NEGATIVE:
        if (status.get(name) or 0) < 0:
            raise DamagedFile(file, f"has {status[name]:g} as {name}")
    final = status.get("final") or {}
    for name, value in final.items():
        if value is not None and not _fits(name, value):
            raise DamagedFile(file, f"has no number as final.{name}")
        most = 1 if name in SHARES else final.get("units") if name in COUNTED else None
        if isinstance(value, NUMBER) and isinstance(most, NUMBER) and not 0 <= value <= most:
            raise DamagedFile(file, f"has {value:g} as final.{name}, which is at most {most:g}")
    if status.get(DIGEST_KEY, (own := status_digest(status))) != own:
        raise DamagedFile(file, "is not what its run wrote: it was changed")
    return status


def _fits(name: str, value: Any) -> bool:
    """Whether a final value has the right type: text for the cause, integers for units, else a number."""
    if name == "cause":
        return isinstance(value, str)
    whole = name not in COUNTED or isinstance(value, int) or value == int(value)
    return isinstance(value, NUMBER) and not isinstance(value, bool) and whole


def config_digest(path: Path) -> str:
    """Return the digest of the configuration in a run's folder; "" if there is none."""
    try:
        return digest(read_text(path / "config.yaml", LARGEST).encode())
    except (OSError, DamagedFile):
        return ""


def read_status(path: Path) -> dict[str, Any] | None:
    """Read the run's status; None if there is no valid one."""
    try:
        return load_status(path)
    except (OSError, DamagedFile):
        return None


def load_config(path: Path) -> dict[str, Any]:
    """Read the run's nested configuration.

    Raises:
        FileNotFoundError: there is none.
        DamagedFile: it is not a valid configuration.
    """
    file = path / "config.yaml"
    text = read_text(file, LARGEST)
    try:
        groups = top_level(text)
        if groups is None:
            config = _load(text)
        else:
            config = {key: value for group in groups for key, value in _parsed(group).items()}
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise DamagedFile(file, f"is no YAML ({one_line(error)})") from None
    return checked(file, config, CONFIG)


def top_level(text: str) -> list[str] | None:
    r"""Split a YAML mapping into groups that can be parsed separately; None if that may not be possible.

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


@lru_cache(maxsize=65_536)
def _parsed(group: str) -> dict[str, Any]:
    """Parse a group; cached because YAML is slow and the runs of a sweep share most groups."""
    return _load(group)


def _load(text: str) -> Any:
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
