"""The section on cures that were tried, of a run that has a `prescription.json`."""

from __future__ import annotations

import pandas as pd

from harness.report import plots
from harness.report.html.page import Block, Section, Table, Words
from harness.report.html.parts import commands, drawn
from harness.report.prescription_table import HEADS, LEFT, prescription_rows
from harness.store.reading import DamagedFile, read_object
from harness.store.runs import Run

FILE = "prescription.json"
COLUMNS = (
    "cure",
    "stands_for",
    "seeds",
    "steps",
    "metric",
    "gain",
    "low",
    "high",
    "dead",
    "diverged",
    "verdict",
)


def prescribed(run: Run) -> list[Section]:
    """What `harness-tools prescribe` found; nothing where it was not asked."""
    try:
        found = read_object(run.path / FILE, {"text": (str,), "command": (str,), "table": (list,)})
    except FileNotFoundError:
        return []
    except (DamagedFile, OSError) as error:
        return [Section("Cures that were tried", [Words(f"Not shown: {error}.", "note")])]
    table = pd.DataFrame(found.get("table") or [])
    blocks: list[Block] = [Words(str(found.get("text") or ""))]
    if found.get("command"):
        blocks.append(commands([str(found["command"])]))
    if len(table) and set(COLUMNS).issubset(table.columns):
        left = frozenset(k for k, head in enumerate(HEADS) if head in LEFT)
        heads = ["accuracy" if head == "metric" else head for head in HEADS]
        blocks += drawn(lambda: plots.trade_off(table))
        rows = prescription_rows(table)
        blocks.append(
            Table(heads, rows, left, f"All {len(rows)} arms", "Cures that were tried, the best first")
        )
    return [Section("Cures that were tried", blocks)]
