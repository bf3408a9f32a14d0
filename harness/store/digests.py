"""Digests of a run's files, stored in its status, to detect files edited, swapped, shuffled or cut later.

A status contains a digest of itself and one of each table. The digest of a table covers its length and its
small footer, which holds the row count and the extremes and position of every column. Page checksums protect
the values.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.store.reading import DamagedFile, is_there, read_text

DIGEST_KEY, TABLES_KEY = "digest", "tables"  # keys in a status
END = 8  # last bytes of a Parquet file: the length of its footer and a magic number
LARGEST = 1 << 24  # most bytes read of a footer, since a damaged file can claim any length
LENGTH = 16  # characters of a digest


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:LENGTH]


def status_digest(status: Mapping[str, Any]) -> str:
    """Return the digest of a status, including its digests of tables but not its own.

    Example:
        >>> status_digest({"state": "running", "digest": "x"}) == status_digest({"state": "running"})
        True
    """
    return digest(json.dumps({k: v for k, v in status.items() if k != DIGEST_KEY}).encode())


def table_digest(path: Path) -> str:
    """Return the digest of a Parquet file's length and footer; "" if it cannot be opened."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - END))
            footer = int.from_bytes(file.read(END // 2), "little") + END
            file.seek(max(0, size - footer))
            return digest(size.to_bytes(8, "little") + file.read(min(footer, LARGEST)))
    except OSError:
        return ""


def table_digests(folder: Path) -> dict[str, str]:
    """Return the digests of all readable Parquet files in a run's folder, by name of the table."""
    files = (path for path in sorted(folder.glob("*.parquet")) if path.is_file())  # skips pipes
    return {path.stem: found for path in files if (found := table_digest(path))}


def is_own(path: Path) -> bool | None:
    """Whether a table is unchanged since its run wrote it, according to the run's status.

    Returns:
        None if the status has no digest: the run is still in progress, or from an earlier version.
    """
    kept = _kept_digest(path)
    if kept is None or table_digest(path) == kept:
        return None if kept is None else True
    return False if _kept_digest(path) == kept else None  # None: the run has just rewritten it


def check_own(path: Path, own: bool | None) -> None:
    """Refuse a table that `is_own` reports as changed.

    Raises:
        DamagedFile: the table was changed or swapped.
    """
    if own is False:
        raise DamagedFile(path, "is not what its run wrote: it was changed or swapped")


def check_missing(path: Path) -> None:
    """Refuse a missing table that its run has written.

    Raises:
        DamagedFile: the table is missing.
    """
    if _kept_digest(path) is not None and not is_there(path):
        raise DamagedFile(path, "is not there any more")


def _kept_digest(path: Path) -> str | None:
    """Read one digest without validating the whole status, since this happens for every table."""
    try:
        return json.loads(read_text(path.parent / "status.json"))[TABLES_KEY].get(path.stem)
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return None  # a damaged status is reported when it is read
