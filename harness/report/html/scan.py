"""The report on a scan: one census of any model."""

from __future__ import annotations

import pandas as pd

from harness.detector.counts import sentence
from harness.detector.grid import SILENT
from harness.detector.states import Thresholds, classify, dead_fraction, summarise
from harness.formats import per_cent
from harness.report import plots
from harness.report.html.method import definitions
from harness.report.html.page import Page, Section, Tiles, Words
from harness.report.html.parts import drawn, frame_table, site_rows

WORST = 50  # largest number of listed units


def scan_report(units: pd.DataFrame, *, title: str = "Scan", thresholds: Thresholds | None = None) -> Page:
    """The report on a census from `harness.scan(model, batches).units`.

    Args:
        units: rows of one census.
        title: what was scanned.
        thresholds: thresholds of the states; None keeps those of the census.

    Raises:
        ValueError: a column is missing.

    Example:
        >>> census = pd.DataFrame({"evidence": "stream", "step": 0, "site": "a", "unit": [0, 1], "n": 90,
        ...     "active": [0, 9], "rate": [0.0, 0.1], "non_finite": 0, "grad_rms": float("nan")})
        >>> "1 of 2 units dead" in scan_report(classify(census)).html()
        True
    """
    if thresholds is not None:
        units = classify(units, thresholds)
    observed = units[units["unit"] >= 0]
    dead = observed[observed["state"] == "dead"]
    tiles = [
        (per_cent(dead_fraction(units)), f"dead: {len(dead):,} of {len(observed):,} units"),
        (f"{units['site'].nunique():,}", "sites"),
    ]
    hidden = sorted(units.loc[units["state"] == "unobserved", "site"].unique())
    notes = [Words(f"Not observed, so without any statement: {', '.join(hidden)}.")] if hidden else []
    closest = observed[~observed["state"].isin(("dead", *SILENT))].nsmallest(WORST, "rate", keep="first")
    columns = [name for name in ("site", "unit", "state", "rate", "rate_upper", "n") if name in units]
    formats = {"rate": lambda v: per_cent(v, 2), "rate_upper": lambda v: per_cent(v, 2)}
    lists = [
        frame_table(part[columns], formats=formats, fold=text)
        for part, text in (
            (dead.head(WORST), f"Dead units (the first {min(WORST, len(dead))} of {len(dead):,})"),
            (closest, f"The {len(closest)} living units with the lowest rates"),
        )
        if len(part)
    ]
    return Page(
        title,
        "one pass in evaluation mode",
        [
            Section("Verdict", [Words(sentence(units), "lead"), Tiles(tiles), *notes]),
            Section("Layer by layer", [*drawn(lambda: plots.state_bars(units)), site_rows(summarise(units))]),
            Section("Rates", [*drawn(lambda: plots.rate_histogram(units)), *lists]),
            definitions(thresholds or Thresholds()),
        ],
    )
