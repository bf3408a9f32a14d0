"""The report on one run: the verdict first, then every layer and unit, causes, settings, method."""

from __future__ import annotations

import shlex
from collections.abc import Hashable
from typing import Any

import pandas as pd

from harness.compare.frames import word
from harness.config.stored import flatten
from harness.detector.overlap import overlap
from harness.detector.states import Thresholds, classify
from harness.detector.two_state import two_state
from harness.detector.verdict import HEALTHY, site_table, verdict
from harness.report import plots
from harness.report.html.method import definitions
from harness.report.html.page import Block, Page, Section, Table, Words
from harness.report.html.parts import Diagnose, causes, commands, drawn, numbers, site_rows, told_events
from harness.store.runs import Run


def run_report(
    run: Run,
    *,
    thresholds: Thresholds | None = None,
    healthy: float = HEALTHY,
    diagnose: Diagnose | None = None,
) -> Page:
    """The report on a stored run.

    Args:
        run: on disk, in any status.
        thresholds: of the states.
        healthy: dead share below which the network is called healthy.
        diagnose: names the causes of a run's deaths; None leaves them out.

    Raises:
        OSError, ValueError: the census table is damaged.
    """
    thresholds = thresholds or Thresholds()
    history, state = run.census, str(run.status.get("state", "unknown"))
    title, subtitle = run.name, f"status: {state} · {run.path}"
    settings = _settings(run.config)
    if history.empty:
        text = "No census is stored (record=off, or its table is gone): no statement about dead units."
        return Page(title, subtitle, [Section("Verdict", [Words(text, "lead"), *_error(run)]), settings])
    history = classify(history, thresholds)
    final = run.status.get("final") or {}
    found = verdict(history, thresholds, healthy=healthy, diverged_at=run.status.get("diverged_at"))
    first: list[Block] = [Words(found.text, "lead"), numbers(found, final.get("accuracy")), *_error(run)]
    more = ["harness-tools report", "harness-tools dashboard"]
    folder = shlex.quote(str(run.path))
    return Page(
        title,
        subtitle,
        [
            Section("Verdict", first),
            *unit_sections(history, site_table(history, thresholds)),
            causes(run, diagnose),
            told_events(run.events),
            settings,
            definitions(thresholds),
            Section("Again", [commands([f"{command} {folder}" for command in more])]),
        ],
    )


def unit_sections(history: pd.DataFrame, table: pd.DataFrame) -> list[Section]:
    """Layers, times and units of a history."""
    return [
        Section("Layer by layer", [*drawn(lambda: plots.state_bars(history)), site_rows(table)]),
        Section(
            "Over time",
            [
                *drawn(
                    lambda: plots.dead_share(history),
                    lambda: plots.lifelines(history),
                    lambda: plots.overlap(overlap(history, against="last")),
                ),
                *_rates(history),
            ],
        ),
        Section("Every unit at every census", drawn(lambda: plots.rate_map(history))),
        Section(
            "Rates and gradients at last",
            drawn(lambda: plots.rate_histogram(history), lambda: plots.gradients(history)),
        ),
    ]


def _rates(history: pd.DataFrame) -> list[Block]:
    """Deaths and revivals per 1,000 steps of every layer, if there were any."""
    table = two_state(history)
    if not (table["deaths"] + table["revivals"]).any():
        return []
    rows = [
        [
            str(row["site"]),
            f"{row['deaths']:,}",
            _rate(row, "death"),
            f"{row['revivals']:,}",
            _rate(row, "revival"),
        ]
        for row in table.to_dict("records")
    ]
    head = ["site", "deaths", "per 1,000 steps alive", "revivals", "per 1,000 steps dead"]
    note = "With exact 95 % intervals for independent changes. What happens between two censuses is not seen."
    return [Table(head, rows), Words(note, "note")]


def _rate(row: dict[Hashable, Any], what: str) -> str:
    if pd.isna(row[f"{what}_rate"]):
        return "–"
    rate, low, high = (f"{row[f'{what}_{part}']:.3g}" for part in ("rate", "low", "high"))
    return f"{rate} ({low} to {high})"


def _settings(config: dict[str, Any]) -> Section:
    rows = [[key, word(value)] for key, value in flatten(config).items()]
    fold = f"All {len(rows)} settings"
    return Section("Settings", [Table(["key", "value"], rows, frozenset({0, 1}), fold)] if rows else [])


def _error(run: Run) -> list[Block]:
    error = run.status.get("error")
    return [Words(f"The run failed: {error}")] if error else []
