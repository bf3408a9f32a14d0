"""A census as a file for other programs: JSON, CSV, Parquet, SARIF, or an HTML report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from harness.store.files import typed

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # first characters of formulas
SARIF = "https://json.schemastore.org/sarif-2.1.0.json"
RULES = {
    "dead": "Units that open on no input",
    "non_finite": "Units with NaN or infinite pre-activations",
    "unobserved": "Units that could not be observed",
}


class Source(NamedTuple):
    """Where a model is defined: a path relative to the current folder, and a line."""

    path: str
    line: int


def export(units: pd.DataFrame, path: Path, *, subject: str, source: Source | None = None) -> None:
    """Write a census atomically, in the format given by the file's suffix.

    Args:
        units: rows of a census.
        path: ends in .json, .html, .csv, .parquet or .sarif.
        subject: what was scanned.
        source: where it is defined, for SARIF: code-scanning services only take results with a place.

    Raises:
        ValueError: unknown suffix.
    """
    check_suffix(path)
    with typed(path) as part:
        WRITERS[path.suffix](units, part, subject, source)


def check_suffix(path: Path) -> None:
    """Check that a census can be written to a file of that name.

    Raises:
        ValueError: unknown suffix.
    """
    if path.suffix not in WRITERS:
        raise ValueError(f"expected a file ending in {', '.join(WRITERS)}, but got {path.name}")


def inert(table: pd.DataFrame) -> pd.DataFrame:
    """A table for CSV: text that a spreadsheet would treat as a formula is prefixed with an apostrophe.

    Example:
        >>> inert(pd.DataFrame({"site": ["=cmd()", "fc1"], "rate": [-1.0, 0.5]}))["site"].tolist()
        ["'=cmd()", 'fc1']
    """
    words = table.select_dtypes(["object", "string", "category"]).columns
    quoted = {name: table[name].map(_quoted) for name in words}
    return table.assign(**quoted).rename(columns=_quoted)


def _quoted(value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith(FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def sarif(units: pd.DataFrame, subject: str, source: Source | None = None) -> dict[str, Any]:
    """Static Analysis Results Interchange Format 2.1.0: one result per site and notable state."""
    results = []
    physical: dict[str, Any] = {}
    if source is not None:
        region = {"startLine": source.line}
        physical = {"physicalLocation": {"artifactLocation": {"uri": source.path}, "region": region}}
    for site, rows in units.groupby("site", sort=False):
        for state, level in (("dead", "warning"), ("non_finite", "error"), ("unobserved", "note")):
            hit = rows[rows["state"] == state]
            if hit.empty:
                continue
            n = int(hit["n"].max())
            bound = f", rate < {100 * hit['rate_upper'].max():.2g} %" if state == "dead" else ""
            text = (
                f"{site}: {len(hit):,} of {len(rows):,} units {state.replace('_', ' ')} (n = {n:,}{bound})."
            )
            logical = [{"fullyQualifiedName": f"{subject}.{site}", "kind": "module"}]
            place = {**physical, "logicalLocations": logical}
            results.append({"ruleId": state, "level": level, "message": {"text": text}, "locations": [place]})
    rules = [{"id": state, "shortDescription": {"text": text}} for state, text in RULES.items()]
    tool = {"driver": {"name": "harness", "rules": rules}}
    return {"$schema": SARIF, "version": "2.1.0", "runs": [{"tool": tool, "results": results}]}


def _json(units: pd.DataFrame, path: Path, subject: str, source: Source | None) -> None:
    rows = units.astype(object).where(units.notna(), None).to_dict("records")
    path.write_text(
        json.dumps({"subject": subject, "units": rows}, indent=1, default=float), encoding="utf-8"
    )


def _html(units: pd.DataFrame, path: Path, subject: str, source: Source | None) -> None:
    from harness.report.html import scan_report  # matplotlib: half a second to import

    scan_report(units, title=f"Scan of {subject}").write(path)


def _sarif(units: pd.DataFrame, path: Path, subject: str, source: Source | None) -> None:
    path.write_text(json.dumps(sarif(units, subject, source), indent=1), encoding="utf-8")


WRITERS: dict[str, Callable[[pd.DataFrame, Path, str, Source | None], Any]] = {
    ".json": _json,
    ".html": _html,
    ".csv": lambda units, path, *_: inert(units).to_csv(path, index=False),
    ".parquet": lambda units, path, *_: units.to_parquet(path, index=False),
    ".sarif": _sarif,
}
