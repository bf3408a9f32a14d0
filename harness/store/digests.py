"""Digests of what a run left, kept in its status: what is edited, swapped, shuffled or cut later is known.

A status carries a digest of itself and one of each table. A table's is of its footer, which is small: there
stand the rows, and the extremes and the place of every column; checksums of its pages vouch for the values.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.store.reading import DamagedFile, is_there, read_text

DIGEST_KEY, TABLES_KEY = "digest", "tables"  # in a status
END = 8  # bytes at the end of a Parquet file: the length of its footer, and a mark
LARGEST = 1 << 24  # bytes of a footer that are read; of a garbled one, the length may be anything
LENGTH = 16  # of a digest


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:LENGTH]


def status_digest(status: Mapping[str, Any]) -> str:
    """Of the plain values of a status; that of its tables counts, its own does not.

    Example:
        >>> status_digest({"state": "running", "digest": "x"}) == status_digest({"state": "running"})
        True
    """
    return digest(json.dumps({k: v for k, v in status.items() if k != DIGEST_KEY}).encode())


def table_digest(path: Path) -> str:
    """Of a Parquet file: its length and its footer; "" if it cannot be opened."""
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
    """Of every Parquet file in a run's folder that can be read, by the name of the table."""
    files = (path for path in sorted(folder.glob("*.parquet")) if path.is_file())  # no pipes
    return {path.stem: found for path in files if (found := table_digest(path))}


def is_own(path: Path) -> bool | None:
    """Whether a table is what its run wrote, if the status beside it tells.

    Returns:
        None where it does not: the run goes on, or is of an earlier version.
    """
    kept = _kept_digest(path)
    if kept is None or table_digest(path) == kept:
        return None if kept is None else True
    return False if _kept_digest(path) == kept else None  # else it has just been written anew


def check_own(path: Path, own: bool | None) -> None:
    """Refuse what `is_own` says is not.

    Raises:
        DamagedFile: it is another table.
    """
    if own is False:
        raise DamagedFile(path, "is not what its run wrote: it was changed or swapped")


def check_missing(path: Path) -> None:
    """Refuse that a table is missing which its run has written.

    Raises:
        DamagedFile: it is missing.
    """
    if _kept_digest(path) is not None and not is_there(path):
        raise DamagedFile(path, "is not there any more")


def _kept_digest(path: Path) -> str | None:
    """Read by itself, not with all of the status: this is done for every table."""
    try:
        return json.loads(read_text(path.parent / "status.json"))[TABLES_KEY].get(path.stem)
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return None  # a damaged status says so itself
