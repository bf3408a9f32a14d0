"""The result of `prescribe`: the recommended cure, its effect, and all other cures that were tried."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from harness.formats import per_cent, points
from harness.store.prescription import write_prescription
from harness.trials.judging import AGAIN, HELPS, REVIVES, UNTOUCHED

Show = Callable[[float], str]
IDLE = "Few units are dead, but the training gains nothing on the held-out data."


@dataclass(frozen=True)
class Prescription:
    """The recommended cure and the evidence for it.

    Attributes:
        cure: name of the cure; "" if none helped or there is nothing to cure.
        label: the cause that the run's diagnosis names; "none" if there is nothing to cure.
        command: how to apply the cure: a command line, or code to change in your own training; "" without a
            cure.
        text: summary in words.
        table: one row per arm, those of the last round first: cure, stands_for, seeds, steps (of its last
            round), metric (mean, on held-out data), gain with low and high (95 % interval against the
            unchanged run on all seeds), dead (mean share), drop of the dead share with drop_low and
            drop_high, diverged (runs), seconds (per training; for a stack, the member's share), verdict. An
            arm with one seed has no interval.
        left_out: cure → why it could not be tried.
        seconds: duration of the trials.
    """

    cure: str
    label: str
    command: str
    text: str
    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    left_out: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def __str__(self) -> str:
        return "\n".join(filter(None, (self.text, self.command)))

    def write(self, folder: str | os.PathLike[str]) -> Path:
        """Write `prescription.json` into a folder."""
        names = ("cure", "label", "command", "text", "seconds", "left_out")
        return write_prescription(Path(folder), self.table, {name: getattr(self, name) for name in names})


def in_words(cure: str, label: str, table: pd.DataFrame, total: int, metric: str = "") -> str:
    """Describe a prescription in sentences.

    Args:
        cure: the recommended cure, or "".
        label: label of the diagnosis.
        table: as `Prescription.table`.
        total: steps of the whole training.
        metric: name of the metric if it is a share; "" otherwise.
    """
    shown: Show = per_cent if metric else "{:.4g}".format
    metric = metric or "metric"
    rows: dict[str, dict[Any, Any]] = {row["cure"]: row for row in table.to_dict("records")}
    before, tried = rows[UNTOUCHED], [name for name in rows if name not in (UNTOUCHED, AGAIN)]
    lines = [
        f"As it was: {metric} {shown(before['metric'])}, {per_cent(before['dead'])} of the units dead"
        f" ({before['seeds']} seeds, {before['steps']:,} of {total:,} steps{_lost(before)}; "
        f"diagnosis: {label}).",
        _found(cure, rows, metric, shown)
        if cure
        else f"None of the {len(tried)} cures that were tried helped.",
    ]
    idle = [name for name in tried if rows[name]["verdict"] == REVIVES and name != cure]
    if idle:
        names = ", ".join(idle)
        lines.append(
            f"Revive units, but bring no sure gain in {metric}, as far as they were trained: {names}."
        )
    if AGAIN in rows:
        lines.append(f"On other seeds the run as it was has {metric} {shown(rows[AGAIN]['metric'])}.")
    return " ".join(lines)


def _lost(arm: dict[Any, Any]) -> str:
    count = int(arm.get("diverged") or 0)
    return f"; {count} diverged, which counts as the lowest metric and all units dead" if count else ""


def _found(cure: str, rows: dict[str, dict[Any, Any]], metric: str, shown: Show) -> str:
    won = rows[cure]
    low, high = (points(won[k]) if shown is per_cent else f"{won[k]:+.4g}" for k in ("low", "high"))
    interval = f"95 % interval of the change: {low} to {high}{' points' if shown is per_cent else ''}"
    dead, reached = per_cent(won["dead"]), shown(won["metric"])
    best = next(row for row in rows.values() if row["verdict"] == won["verdict"])
    beside = ""
    if best["cure"] != cure:
        named = f"{best['cure']}: {shown(best['metric'])}, {per_cent(best['dead'])} dead"
        beside = (
            f" Of the changes within the noise of the best ({named}) that leave few dead, it is the smallest."
        )
    if won["verdict"] == HELPS:
        change = f"It changes the {metric} to {reached} ({interval})"
        return f"Recommended: {cure}. {change}; {dead} of the units are dead then.{beside}"
    return (
        f"Recommended: {cure}. No cure improves the {metric} for sure; with this one it is {reached} "
        f"({interval}), and {dead} of the units are dead.{beside}"
    )
