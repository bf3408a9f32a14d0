"""Diagnosis: why the units of a run are dead, as a label, tables and sentences."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from harness.attribution.causes import birth_causes, cause_of, explained_by, factor_shares, has_known_layer
from harness.attribution.diagnosis_text import diagnosis_text
from harness.attribution.events import Event
from harness.attribution.evidence import FACTORS, Evidence
from harness.attribution.findings import find
from harness.detector.states import Thresholds


@dataclass(frozen=True)
class Diagnosis:
    """Why the units of a run are dead.

    Attributes:
        label: the run's cause, one of `harness.attribution.causes.LABELS`.
        units: one row per dead unit: site, unit, cause, born, died_at, the share of every factor
            (weights, decay, bias, norm, upstream, data) in its fall, suddenness (share of the fall from its
            largest margin that came in the window that killed it).
        events: one row per dated event: step, label, column, ratio, deaths (from there on), text.
        text: the sentences.
    """

    label: str
    units: pd.DataFrame
    events: pd.DataFrame
    text: str

    def __str__(self) -> str:
        return self.text


def diagnose(history: pd.DataFrame, evidence: Evidence, thresholds: Thresholds | None = None) -> Diagnosis:
    """Why the units of a run are dead.

    Args:
        history: every census of the run.
        evidence: the tables of `Recorder.evidence()`, or of a stored run.
        thresholds: of the states.

    Raises:
        ValueError: the history is empty.
    """
    if history.empty:
        raise ValueError("diagnose: expected a history with at least one census, but it is empty")
    found = find(history, evidence, thresholds)
    cause = cause_of(found, evidence)
    dead = found.units[found.units["dead"]]
    units = dead[["site", "unit", "born", "died_at", "suddenness"]].copy()
    units["cause"] = _unit_causes(dead, evidence)
    units["died_at"] = units["died_at"].round().astype("Int64")
    columns = ["site", "unit", "cause", "born", "died_at", *FACTORS, "suddenness"]
    units = pd.concat([units, factor_shares(dead)], axis=1)[columns].reset_index(drop=True)
    explained = [explained_by(cause, event) for event in found.events]
    dated = pd.DataFrame(explained, columns=pd.Index(Event._fields))
    dated["deaths"] = [len(found.deaths_from(event)) for event in found.events]
    dated = dated[["step", "label", "column", "ratio", "deaths", "text"]]
    return Diagnosis(cause.label, units, dated, diagnosis_text(cause, found, units, evidence))


def _unit_causes(dead: pd.DataFrame, evidence: Evidence) -> list[str]:
    """Of the born dead the part that closed them, of the others the factor that took most of their rate."""
    born = dead[dead["born"] & dead["spread"].notna()]
    causes = dict(zip(born.index, birth_causes(born, evidence.layers), strict=True))
    shares = factor_shares(dead[~dead["born"]]).dropna(how="all")
    largest = shares.idxmax(axis=1).astype(str)
    own = has_known_layer(dead.loc[shares.index], evidence.layers)
    causes |= dict(zip(shares.index, largest.where(own | largest.ne("upstream"), "unknown"), strict=True))
    return [causes.get(index, "unknown") for index in dead.index]
