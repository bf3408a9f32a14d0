"""Evidence of a run on disk: three Parquet files, each written atomically."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa

from harness.store.digests import check_own, is_own
from harness.store.files import whole
from harness.store.folder import RunFolder
from harness.store.reading import DamagedFile, is_there, one_line

PARTS = ("steps", "units", "layers")
WORDS = {"site", "layer", "source", "normed", "starved_by"}  # text columns; all others are numeric
KEYS = {"steps": {"step"}, "units": {"site", "unit"}, "layers": {"site"}}  # columns that identify a row


def write_evidence(folder: Path, tables: Mapping[str, pd.DataFrame]) -> None:
    """Write the three tables into a run's folder.

    Args:
        folder: the run's folder.
        tables: tables by the names in `PARTS`.
    """
    for name in PARTS:
        with whole(folder / f"evidence_{name}.parquet") as part:
            tables[name].to_parquet(part, index=False, write_page_checksum=True)
    RunFolder(folder).add_tables(*(f"evidence_{name}" for name in PARTS))


def has_evidence(folder: Path) -> bool:
    """Whether all evidence of the run is stored.

    Raises:
        DamagedFile: a path exists but is not a regular file.
    """
    there = [is_there(folder / f"evidence_{name}.parquet") for name in PARTS]
    return all(there)


def read_evidence(folder: Path) -> dict[str, pd.DataFrame] | None:
    """Read the tables by name; None if the run stored no evidence.

    Raises:
        DamagedFile: a table cannot be read, or was changed.
    """
    if not has_evidence(folder):
        return None
    return {name: _read(folder / f"evidence_{name}.parquet", name) for name in PARTS}


def _read(path: Path, name: str) -> pd.DataFrame:
    own = is_own(path)
    try:
        table = pd.read_parquet(path, page_checksum_verification=True)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise DamagedFile(path, f"is no whole Parquet file ({one_line(error)})") from None
    lacking = KEYS[name] - set(table.columns) if len(table) else set()
    if lacking:
        raise DamagedFile(path, f"lacks the column(s) {', '.join(sorted(lacking))}")
    for column, values in table.items():
        numbers = pd.api.types.is_numeric_dtype(values)
        if len(table) and numbers == (column in WORDS) and not values.isna().all():
            raise DamagedFile(path, f"has the type {values.dtype} in column {column}")
    check_own(path, own)
    return table
