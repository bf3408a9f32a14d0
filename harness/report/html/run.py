"""The report on one run: the verdict first, then layers and units, causes, settings, method."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import pandas as pd

from harness.detector.overlap import overlap
from harness.detector.states import Thresholds, classify
from harness.detector.two_state import two_state
from harness.detector.verdict import HEALTHY, site_table, verdict
from harness.report import plots
from harness.report.html.method import definitions
from harness.report.html.page import Block, Page, Section, Table, Words
from harness.report.html.parts import Diagnose, causes, diagnosed, drawn, events_section, numbers, site_rows
from harness.report.html.pictures import picture
from harness.report.html.prescription import prescribed
from harness.report.html.settings import answer, rerun_sections, settings
from harness.report.plots.training import training_words
from harness.report.tables import NO_CENSUS
from harness.store.locks import is_held
from harness.store.runs import Run


def run_report(
    run: Run,
    *,
    thresholds: Thresholds | None = None,
    healthy: float = HEALTHY,
    diagnose: Diagnose | None = None,
    stays: bool = True,
) -> Page:
    """The report on a stored run.

    Args:
        run: a run on disk, in any status.
        thresholds: thresholds of the states.
        healthy: dead share below which the network is called healthy.
        diagnose: names the causes of a run's deaths; None leaves them out.
        stays: whether the run stays where it is, so that commands can refer to it.
    """
    thresholds = thresholds or Thresholds()
    title, subtitle = run.name, f"status: {state_words(run)} · {run.path}"
    history, lost = _table(run, "census")
    trained, last = _training(run), [*settings(run), *(rerun_sections(run) if stays else [])]
    if history.empty:
        text = lost or NO_CENSUS
        return Page(
            title, subtitle, [Section("Verdict", [Words(text, "lead"), *_ending(run)]), trained, *last]
        )
    history = classify(history, thresholds)
    found = verdict(history, thresholds, healthy=healthy, diverged_at=run.status.get("diverged_at"))
    why = diagnosed(run, diagnose)
    first = [Words(found.text, "lead"), *answer(run, why, sick=found.dead_fraction > healthy, stays=stays)]
    events, torn = _table(run, "events")
    diverged = run.status.get("diverged_at") is not None
    tiles = numbers(found, run.final.get("accuracy"), diverged=diverged)
    return Page(
        title,
        subtitle,
        [
            Section("Verdict", [*first, tiles, *_ending(run)]),
            trained,
            *unit_sections(history, site_table(history, thresholds), found.evidence, diverged=diverged),
            causes(why),
            *prescribed(run),
            Section("Events", [Words(torn, "note")]) if torn else events_section(events),
            *last[:1],
            definitions(thresholds),
            *last[1:],
        ],
    )


def state_words(run: Run) -> str:
    """A run's status, including whether its process ended without concluding it."""
    gone = run.state == "running" and not is_held(run.path)
    return "interrupted (its process ended without concluding it)" if gone else run.state


def _table(run: Run, name: str) -> tuple[pd.DataFrame, str]:
    """A table of a run; if it is damaged, an empty one and a sentence that says why."""
    try:
        return getattr(run, name), ""
    except (OSError, ValueError) as error:
        return pd.DataFrame(), f"The table {name} cannot be read: {error}. Nothing is said of what it held."


def _training(run: Run) -> Section:
    """Loss, accuracy and further metrics over the steps, if there are any."""
    steps, lost = _table(run, "steps")
    if lost:
        return Section("Loss and accuracy", [Words(lost, "note")])
    try:
        words = training_words(steps)
    except ValueError:
        return Section("Loss and accuracy", [])
    return Section("Loss and accuracy", [picture(lambda: plots.training(steps), words)])


def unit_sections(
    history: pd.DataFrame, table: pd.DataFrame, evidence: str, *, diverged: bool
) -> list[Section]:
    """Sections on layers, times and units of a history; `evidence` is that of the dead units."""
    return [
        Section(
            "Layer by layer",
            [*drawn(lambda: plots.state_bars(history)), site_rows(table, evidence, diverged=diverged)],
        ),
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
            "Rates and gradients at the end",
            drawn(lambda: plots.rate_histogram(history), lambda: plots.gradients(history)),
        ),
    ]


def _rates(history: pd.DataFrame) -> list[Block]:
    """Deaths and revivals per 1,000 steps for every layer, if there were any."""
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
    return [Table(head, rows, caption="Deaths and revivals of every site"), Words(note, "note")]


def _rate(row: dict[Hashable, Any], what: str) -> str:
    if pd.isna(row[f"{what}_rate"]):
        return "–"
    rate, low, high = (f"{row[f'{what}_{part}']:.3g}" for part in ("rate", "low", "high"))
    return f"{rate} ({low} to {high})"


def _ending(run: Run) -> list[Block]:
    """How the run ended, if not at its last step."""
    error, state, stopped = run.status.get("error"), run.state, run.status.get("stopped")
    how = "failed" if state == "failed" else f"was {state}"
    blocks: list[Block] = [Words(f"The run {how}: {error}")] if error else []
    return [*blocks, Words(f"It ended before its last step: {stopped}.")] if stopped else blocks
