"""Evidence of a run on disk: three Parquet files, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from harness.store.files import whole

PARTS = ("steps", "units", "layers")


def write_evidence(folder: Path, tables: Mapping[str, pd.DataFrame]) -> None:
    """Write the three tables into a run's folder.

    Args:
        folder: of the run.
        tables: by the names in `PARTS`.
    """
    for name in PARTS:
        with whole(folder / f"evidence_{name}.parquet") as part:
            tables[name].to_parquet(part, index=False)


def read_evidence(folder: Path) -> dict[str, pd.DataFrame] | None:
    """The tables by name; None if the run kept no evidence."""
    files = {name: folder / f"evidence_{name}.parquet" for name in PARTS}
    if not all(file.is_file() for file in files.values()):
        return None
    return {name: pd.read_parquet(file) for name, file in files.items()}
