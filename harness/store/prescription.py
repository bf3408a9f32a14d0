"""`prescription.json` in a run's folder: the cures that were tried on the run, and their results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from harness.store.files import typed, write_json
from harness.store.reading import DamagedFile, read_object

FILE = "prescription.json"
WORDS = ("cure", "stands_for", "verdict")
NUMBERS = ("seeds", "steps", "metric", "dead", "diverged", "seconds")
MAYBE = ("gain", "low", "high")  # null for the unchanged run; low and high also for a single seed


def write_prescription(folder: Path, table: pd.DataFrame, facts: Mapping[str, Any]) -> Path:
    """Write the file atomically, with null for missing values of the table."""
    path, plain = folder / FILE, table.astype(object)
    rows = plain.where(table.notna(), None).to_dict("records")  # type: ignore[call-overload]
    write_json(path, {**facts, "table": rows}, typed)
    return path


def read_prescription(folder: Path) -> dict[str, Any] | None:
    """Read the file, with `table` as a DataFrame; None if there is none.

    Raises:
        DamagedFile: it does not have the format of `write_prescription`.
    """
    path = folder / FILE
    try:
        found = read_object(path, {"text": (str,), "command": (str,), "table": (list,)})
    except FileNotFoundError:
        return None
    rows = found.get("table") or []
    if not isinstance(found.get("text"), str) or not all(map(_is_row, rows)):
        raise DamagedFile(path, "holds no table of cures")
    return found | {"table": pd.DataFrame(rows)}


def _is_row(row: Any) -> bool:
    return (
        isinstance(row, dict)
        and all(isinstance(row.get(name), str) for name in WORDS)
        and all(_is_number(row.get(name)) for name in NUMBERS)
        and all(row.get(name) is None or _is_number(row[name]) for name in MAYBE)
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
