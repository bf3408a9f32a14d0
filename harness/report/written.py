"""Tables as files for other programs: one JSON file, or one CSV file per table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from harness.report.export import inert
from harness.store.files import typed, write_json


def write_tables(
    tables: Mapping[str, pd.DataFrame], json: Path | None, csv: Path | None, **facts: Any
) -> list[Path]:
    """Write tables as one JSON file, as CSV files in a folder, or both.

    Args:
        tables: tables by name.
        json: the file; None writes none.
        csv: the folder, created if necessary; None writes none.
        facts: further entries of the JSON file.

    Returns:
        The written files.

    Raises:
        OSError: a file cannot be written.
    """
    written = []
    if json is not None:
        rows = {name: table.to_dict("records") for name, table in tables.items()}
        write_json(json, plain({**facts, **rows}), typed)
        written.append(json)
    if csv is not None:
        csv.mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            path = csv / f"{name}.csv"
            with typed(path) as part:
                inert(table).to_csv(part, index=False)
            written.append(path)
    return written


def plain(value: Any) -> Any:
    """JSON values; NaN and NA become null, infinities "inf" or "-inf", since those can be answers.

    Example:
        >>> plain({"p": float("nan"), "at": [float("inf"), pd.NA]})
        {'p': None, 'at': ['inf', None]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if value is pd.NA or value is pd.NaT:
        return None
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return str(value) if isinstance(value, Path) else value
