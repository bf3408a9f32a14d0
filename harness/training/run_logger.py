"""Log a run during training: write rows to its tables, then pass them to listeners."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
from torch import Tensor, stack

from harness.detector.grid import Columns
from harness.store.folder import RunFolder
from harness.store.schema import EVENTS, STEPS, TABLES
from harness.store.tables import read_table
from harness.store.writer import TableWriter


class Listener(Protocol):
    """A view of a run in training. Rows are on disk before a listener receives them."""

    def tick(self, step: int) -> None:
        """Called after every step."""

    def steps(self, rows: pd.DataFrame) -> None:
        """New rows of the table `steps`."""

    def census(self, rows: pd.DataFrame) -> None:
        """A new census."""


class View(Protocol):
    """A listener that also accepts columns as arrays and is not called at every step."""

    def steps(self, rows: Columns) -> None:
        """New rows of the table `steps`."""

    def census(self, rows: Columns) -> None:
        """A new census."""


def tell_before(folder: Path, listeners: Sequence[Listener | View]) -> None:
    """Pass the rows from before a checkpoint to new listeners."""
    if not listeners:
        return
    steps = read_table(folder, "steps").to_pandas()
    history = read_table(folder, "census").to_pandas()
    for listener in listeners:
        if len(steps):
            listener.steps(steps)
        for _, census in history.groupby("step", sort=True):
            listener.census(census)


class RunLogger:
    """Buffers the scalars of every step on the device and writes them in blocks.

    Args:
        folder: the run's folder.
        positions: positions of the streams at the checkpoint to continue; empty to start from scratch.
        listeners: notified after each write.
    """

    def __init__(self, folder: RunFolder, positions: dict[str, int], listeners: Sequence[Listener]) -> None:
        self._writers = {name: TableWriter(folder.path, name, positions.get(name, 0)) for name in TABLES}
        self._listeners = listeners
        self._rows: list[tuple[int, float, float]] = []
        self._values: list[Tensor] = []
        self._tests: dict[int, tuple[float, float]] = {}
        if positions:
            tell_before(folder.path, listeners)

    def step(self, step: int, epoch: float, lr: float, loss: Tensor, accuracy: Tensor) -> None:
        """Buffer one step; `loss` and `accuracy` stay on their device until the next `flush`."""
        self._rows.append((step, epoch, lr))
        self._values.append(stack([loss.detach().double(), accuracy.double()]))
        for listener in self._listeners:
            listener.tick(step)

    def test(self, step: int, loss: float, accuracy: float) -> None:
        """Buffer the test set's result after `step` steps."""
        self._tests[step] = (loss, accuracy)

    def flush(self) -> int | None:
        """Write the buffered steps.

        Returns:
            The first step with a non-finite loss, which is the last one written; None if all are finite.
        """
        if not self._rows:
            return None
        values = stack(self._values).cpu().numpy()
        bad = np.flatnonzero(~np.isfinite(values[:, 0]))
        kept = len(values) if len(bad) == 0 else int(bad[0]) + 1
        columns: dict[str, Any] = dict(
            zip(("step", "epoch", "lr"), zip(*self._rows[:kept], strict=True), strict=True)
        )
        columns |= {"loss": values[:kept, 0], "accuracy": values[:kept, 1]}
        tests = [self._tests.pop(step, (np.nan, np.nan)) for step, _, _ in self._rows[:kept]]
        columns["test_loss"], columns["test_accuracy"] = zip(*tests, strict=True)
        diverged = None if len(bad) == 0 else self._rows[kept - 1][0]
        self._rows, self._values = [], []
        self._writers["steps"].append({name: np.asarray(column) for name, column in columns.items()})
        frame = pd.DataFrame(columns)[STEPS.names]
        for listener in self._listeners:
            listener.steps(frame)
        return diverged

    def census(self, rows: pd.DataFrame) -> None:
        """Write a census as one batch of rows."""
        if len(rows):
            self._writers["census"].append({str(name): rows[name].to_numpy() for name in rows})
            for listener in self._listeners:
                listener.census(rows)

    def append(self, name: str, rows: pa.RecordBatch) -> None:
        """Write rows in columnar form, without notifying listeners."""
        self._writers[name].append_batch(rows)

    def event(self, step: int, kind: str, *, site: str = "", units: int = 0, detail: str = "") -> None:
        """Write an event."""
        row = {"step": [step], "kind": [kind], "site": [site], "units": [units], "detail": [detail]}
        self._writers["events"].append({name: row[name] for name in EVENTS.names})

    @property
    def positions(self) -> dict[str, int]:
        return {name: writer.position for name, writer in self._writers.items()}

    def finish(self) -> None:
        """Convert the streams to Parquet files."""
        for writer in self._writers.values():
            writer.finish()

    def close(self) -> None:
        """Close the streams so that they can be continued."""
        for writer in self._writers.values():
            writer.close()
