"""Digests of what a run left, kept in its status: what is edited, swapped, shuffled or cut later is known.

A status carries a digest of itself and one of each table. A table's is of its footer, which is small: there
stand the rows, and the extremes and the place of every column; checksums of its pages vouch for the values.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.store.reading import DamagedFile, is_there, read_object

DIGEST_KEY, TABLES_KEY = "digest", "tables"  # in a status
END = 8  # bytes at the end of a Parquet file: the length of its footer, and a mark
LENGTH = 16  # of a digest


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:LENGTH]


def status_digest(status: Mapping[str, Any]) -> str:
    """Of the plain values of a status; that of its tables counts, its own does not.

    Example:
        >>> status_digest({"state": "running", "digest": "x"}) == status_digest({"state": "running"})
        True
    """
    return digest(json.dumps({k: v for k, v in status.items() if k != DIGEST_KEY}, sort_keys=True).encode())


def table_digest(path: Path) -> str:
    """Of a Parquet file: its length and its footer.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - END))
        footer = int.from_bytes(file.read(END // 2), "little") + END
        file.seek(max(0, size - footer))
        return digest(size.to_bytes(8, "little") + file.read(footer))


def table_digests(folder: Path) -> dict[str, str]:
    """Of every Parquet file in a run's folder that can be read, by the name of the table."""
    found = {}
    for path in sorted(folder.glob("*.parquet")):
        with suppress(OSError):
            if path.is_file():  # no pipe
                found[path.stem] = table_digest(path)
    return found


def kept_digest(path: Path) -> str | None:
    """What the status beside a table says of it; None if nothing: the run goes on, or is an older one."""
    try:
        kept = read_object(path.parent / "status.json", {TABLES_KEY: (dict,)}).get(TABLES_KEY) or {}
    except (OSError, DamagedFile):
        return None
    return kept.get(path.stem)


def check_table(path: Path, kept: str | None) -> None:
    """Hold a table against what its run's status says of it.

    Raises:
        DamagedFile: it is another one.
    """
    if (
        kept is not None and table_digest(path) != kept and kept_digest(path) == kept
    ):  # not written anew since
        raise DamagedFile(path, "is not what its run wrote: it was changed or swapped")


def check_missing(path: Path) -> None:
    """Raises DamagedFile if a table that is not there has been written."""
    if not is_there(path) and kept_digest(path) is not None:
        raise DamagedFile(path, "is not there any more")
