"""Diagnosis: why the units of a run are dead, as a label, tables and sentences."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from harness.attribution.cause_text import cause_text
from harness.attribution.causes import cause_of, explained_by
from harness.attribution.dead_units import factor_shares
from harness.attribution.diagnosis_text import diagnosis_text
from harness.attribution.event import Event
from harness.attribution.evidence import FACTORS, Evidence
from harness.attribution.findings import find
from harness.attribution.next_step import next_step
from harness.attribution.unit_causes import unit_causes
from harness.detector.states import Thresholds


@dataclass(frozen=True)
class Diagnosis:
    """Why the units of a run are dead.

    Attributes:
        label: the run's cause, one of `harness.attribution.labels.LABELS`.
        units: one row per dead unit: site, unit, cause (a key of
            `harness.attribution.unit_causes.UNIT_CAUSES`), born, died_at, the share of every factor (weights,
            decay, bias, norm, upstream, data) in its fall, suddenness (share of the fall from its largest
            margin in the window that killed it), evidence ("probe" or "stream": on which it is dead). died_at
            is the step of its last death. Probe: the first census that shows it dead, or the step since the
            previous census from which training no longer opened it. Stream: the step after the last one that
            opened it.
        events: one row per dated event: step, label, column, ratio, deaths (from there on), text.
        text: the sentences.
        cause: the sentence that names the cause, or says that there is nothing to explain.
        next_step: what to try first; "" if the cause is unknown, or nothing is wrong.
    """

    label: str
    units: pd.DataFrame
    events: pd.DataFrame
    text: str
    cause: str = ""
    next_step: str = ""

    def __str__(self) -> str:
        return f"{self.text}\nNext: {self.next_step}" if self.next_step else self.text


def diagnose(history: pd.DataFrame, evidence: Evidence, thresholds: Thresholds | None = None) -> Diagnosis:
    """Explain why the units of a run are dead.

    Args:
        history: every census of the run.
        evidence: the tables of `Recorder.evidence()`, or of a stored run.
        thresholds: thresholds of the states.

    Raises:
        ValueError: the history is empty.
    """
    if history.empty:
        raise ValueError("diagnose: expected a history with at least one census, but it is empty")
    found = find(history, evidence, thresholds)
    cause = cause_of(found, evidence)
    dead = found.units[found.units["dead"]]
    units = dead[["site", "unit", "born", "died_at", "suddenness"]].copy()
    units["cause"] = unit_causes(dead, found, evidence)
    units["died_at"] = units["died_at"].round().astype("Int64")
    units["evidence"] = found.evidence
    columns = ["site", "unit", "cause", "born", "died_at", *FACTORS, "suddenness", "evidence"]
    units = pd.concat([units, factor_shares(dead)], axis=1)[columns].reset_index(drop=True)
    explained = [explained_by(cause, event, found) for event in found.events]
    dated = pd.DataFrame(explained, columns=pd.Index(Event._fields))
    dated["deaths"] = [len(found.deaths_from(event)) for event in found.events]
    dated = dated[["step", "label", "column", "ratio", "deaths", "text"]]
    text, reason = diagnosis_text(cause, found, units, evidence), cause_text(cause, found, evidence)
    return Diagnosis(cause.label, units, dated, text, reason, next_step(cause, found, evidence))
