"""Locks of folders, so that only one process at a time writes to a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import BaseFileLock

PATIENCE = 5.0  # seconds to wait; a killed process holds its locks until the system has removed it


def lock_of(folder: Path, patience: float | None = None) -> BaseFileLock:
    """Return a folder's lock; acquiring it raises `filelock.Timeout` after `patience` seconds."""
    from filelock import FileLock

    return FileLock(folder / ".lock", timeout=PATIENCE if patience is None else patience)


def is_held(folder: Path) -> bool:
    """Whether a process is writing to the folder; True if that cannot be determined."""
    from filelock import FileLock, Timeout

    if not (folder / ".lock").exists():
        return True
    try:
        with FileLock(folder / ".lock", timeout=0):
            return False
    except (Timeout, OSError):
        return True
