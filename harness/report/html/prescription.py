"""The section on tried cures, for a run with a `prescription.json`."""

from __future__ import annotations

from harness.report import plots
from harness.report.html.page import Block, Section, Table, Words
from harness.report.html.parts import commands, drawn
from harness.report.prescription_table import HEADS, LEFT, prescription_rows
from harness.store.prescription import read_prescription
from harness.store.runs import Run

TITLE = "Cures that were tried"


def prescribed(run: Run) -> list[Section]:
    """The results of `harness-tools prescribe`; empty if it was not run."""
    try:
        found = read_prescription(run.path)
    except (OSError, ValueError) as error:
        return [Section(TITLE, [Words(f"Not shown: {error}.", "note")])]
    if found is None:
        return []
    blocks: list[Block] = [Words(found["text"])]
    if found.get("command"):
        blocks.append(commands([found["command"]]))
    if len(found["table"]):
        rows = prescription_rows(found["table"])
        left = frozenset(k for k, head in enumerate(HEADS) if head in LEFT)
        blocks += drawn(lambda: plots.trade_off(found["table"]))
        blocks.append(Table(list(HEADS), rows, left, f"All {len(rows)} arms", f"{TITLE}, the best first"))
    return [Section(TITLE, blocks)]
