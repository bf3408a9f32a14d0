"""Locks of folders: one process writes to a folder at a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import BaseFileLock

PATIENCE = 5.0  # seconds; a killed process holds its locks until the system has taken it down


def lock_of(folder: Path, patience: float | None = None) -> BaseFileLock:
    """The lock of a folder; to take it raises `filelock.Timeout` if others hold it longer than `patience`."""
    from filelock import FileLock

    return FileLock(folder / ".lock", timeout=PATIENCE if patience is None else patience)


def is_held(folder: Path) -> bool:
    """Whether a process writes to the folder now; also where that cannot be known."""
    from filelock import FileLock, Timeout

    if not (folder / ".lock").exists():
        return True
    try:
        with FileLock(folder / ".lock", timeout=0):
            return False
    except (Timeout, OSError):
        return True
