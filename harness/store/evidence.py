"""Evidence of a run on disk: three Parquet files, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa

from harness.store.files import whole
from harness.store.reading import DamagedFile, is_there, one_line
from harness.store.tables import read_table

PARTS = ("steps", "units", "layers")
WORDS = {"site", "layer", "source", "normed", "starved_by"}  # columns of words; all others are numbers
KEYS = {"steps": {"step"}, "units": {"site", "unit"}, "layers": {"site"}}  # columns that name a row
CENSUS = "census"  # attribute of `steps`: which census the evidence belongs to


def write_evidence(folder: Path, tables: Mapping[str, pd.DataFrame]) -> None:
    """Write the three tables into a run's folder, whose census is there.

    Args:
        folder: of the run.
        tables: by the names in `PARTS`.
    """
    for name in PARTS:
        table = tables[name]
        if name == "steps":
            table = table.copy(deep=False)
            table.attrs[CENSUS] = _fingerprint(folder)
        with whole(folder / f"evidence_{name}.parquet") as part:
            table.to_parquet(part, index=False)


def has_evidence(folder: Path) -> bool:
    """Whether the run kept all of its evidence.

    Raises:
        DamagedFile: something else is in the place of a file.
    """
    there = [is_there(folder / f"evidence_{name}.parquet") for name in PARTS]
    return all(there)


def read_evidence(folder: Path) -> dict[str, pd.DataFrame] | None:
    """The tables by name; None if the run kept no evidence.

    Raises:
        DamagedFile: one cannot be read, or tells of another run than the census.
    """
    if not has_evidence(folder):
        return None
    tables = {name: _read(folder / f"evidence_{name}.parquet", name) for name in PARTS}
    if tables["steps"].attrs.pop(CENSUS, _fingerprint(folder)) != _fingerprint(folder):
        raise DamagedFile(folder / "evidence_steps.parquet", "tells of another run than the census beside it")
    return tables


def _read(path: Path, name: str) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise DamagedFile(path, f"is no whole Parquet file ({one_line(error)})") from None
    lacking = KEYS[name] - set(table.columns) if len(table) else set()
    if lacking:
        raise DamagedFile(path, f"lacks the column(s) {', '.join(sorted(lacking))}")
    for column, values in table.items():
        numbers = pd.api.types.is_numeric_dtype(values)
        if len(table) and numbers == (column in WORDS) and not values.isna().all():
            raise DamagedFile(path, f"has the type {values.dtype} in column {column}")
    return table


def _fingerprint(folder: Path) -> list[int]:
    """Of a run's censuses: how many rows, and the sums of their counts."""
    census = read_table(folder, "census", ["n", "active"])
    return [len(census), *(int(census[name].to_numpy().sum()) for name in ("n", "active"))]
