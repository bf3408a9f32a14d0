"""Write the tables of all members together, each into its own run's folder."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from harness.store.files import side_by_side
from harness.store.folder import RunFolder
from harness.store.schema import STEPS
from harness.training.run_logger import RunLogger, View, tell_before
from harness.training.stacked import backend


class BatchTableWriter:
    """One RunLogger per member, and a buffer for the scalars of every step.

    Args:
        folders: folders of all members.
        positions: positions of their streams at the checkpoint to continue; empty dictionaries to start from
            scratch.
        rates: (steps, K) learning rates of all members.
        steps_per_epoch: for the column `epoch`.
        views: views of each member, notified of its rows once they are on disk; empty for none.
    """

    def __init__(
        self,
        folders: Sequence[RunFolder],
        positions: Sequence[dict[str, int]],
        rates: np.ndarray,
        steps_per_epoch: int,
        views: Sequence[Sequence[View]] = (),
    ) -> None:
        self._loggers: list[RunLogger] = []
        self._views = views or [()] * len(folders)
        try:
            for folder, position in zip(folders, positions, strict=True):
                self._loggers.append(RunLogger(folder, position, ()))
            for folder, position, own in zip(folders, positions, self._views, strict=True):
                if position:
                    tell_before(folder.path, own)
        except BaseException:
            self.close()
            raise
        self._rates, self._steps_per_epoch = rates, steps_per_epoch
        self.members = list(range(len(folders)))  # members still in the stack, in its order
        self._steps: list[int] = []
        self._values: list[np.ndarray] = []  # (2, members) of each step
        self._on_device: list[Tensor] = []  # the same of the latest steps, still on a GPU
        self._until: dict[int, int] = {}  # place → step after which a member's rows count no longer
        self._tests: dict[int, np.ndarray] = {}

    def step(self, step: int, loss: Tensor, accuracy: Tensor) -> None:
        """Buffer one step of all members, in the order of the stack; does not synchronise a GPU."""
        self._steps.append(step)
        values = torch.stack([loss.double(), accuracy.double()])
        if backend.compiled(values.device):
            self._values.append(values.numpy())
        else:
            self._on_device.append(values)

    def losses(self, after: int) -> np.ndarray:
        """Losses (steps, members) of the buffered steps after step `after`."""
        self._fetch()
        new = len(self._steps) - bisect_right(self._steps, after)
        rows = [values[0] for values in self._values[len(self._values) - new :]]
        return np.array(rows).reshape(-1, len(self.members))

    def end(self, place: int, step: int) -> None:
        """End a member at a step: its buffered rows after it are dropped when it leaves."""
        self._until[place] = step

    def test(self, step: int, loss: np.ndarray, accuracy: np.ndarray) -> None:
        """Buffer the test set's results after `step` steps."""
        self._tests[step] = np.stack([loss, accuracy]).astype(np.float64)

    def census(self, table: pa.RecordBatch) -> None:
        """Write the concatenated rows of all members."""
        self._write("census", table, len(self.members))

    def event(
        self, place: int, step: int, kind: str, *, site: str = "", units: int = 0, detail: str = ""
    ) -> None:
        """Write an event of the member at a place of the stack."""
        self._loggers[self.members[place]].event(step, kind, site=site, units=units, detail=detail)

    def flush(self) -> None:
        """Write the buffered steps."""
        if self._steps and self.members:
            self._write("steps", self._rows(range(len(self.members))), len(self.members))
        self._steps, self._values, self._tests = [], [], {}

    def keep(self, places: Sequence[int]) -> None:
        """Keep only the members at these places; write the buffered rows of the others."""
        gone = [k for k in range(len(self.members)) if k not in set(places)]
        self._fetch()
        for place in gone:
            if self._steps:
                rows, member = self._rows([place]), self.members[place]
                until = self._until.get(place, self._steps[-1])
                rows = rows.slice(0, sum(step <= until for step in self._steps))
                self._loggers[member].append("steps", rows)
                self._tell("steps", arrays_of(rows), [member])
        self._until.clear()
        self._values = [value[:, list(places)] for value in self._values]
        self._tests = {step: value[:, list(places)] for step, value in self._tests.items()}
        self.members = [self.members[k] for k in places]

    @property
    def positions(self) -> list[dict[str, int]]:
        return [logger.positions for logger in self._loggers]

    def finish(self) -> None:
        """Convert the streams to Parquet files."""
        side_by_side(RunLogger.finish, self._loggers)

    def close(self) -> None:
        """Close the streams so that they can be continued."""
        for logger in self._loggers:
            logger.close()

    def _fetch(self) -> None:
        """Copy what is still on a GPU."""
        if self._on_device:
            self._values += list(torch.stack(self._on_device).cpu().numpy())
            self._on_device = []

    def _rows(self, places: Sequence[int]) -> pa.RecordBatch:
        """Return the buffered rows of some members, concatenated."""
        self._fetch()
        steps = np.array(self._steps, np.int64)
        values = np.stack(self._values)[:, :, list(places)]  # (steps, 2, members)
        tests = np.full(values.shape, np.nan)
        for row, step in enumerate(self._steps):
            if step in self._tests:
                tests[row] = self._tests[step][:, list(places)]
        members = [self.members[k] for k in places]
        columns = {
            "step": np.tile(steps, len(members)),
            "epoch": np.tile(steps / self._steps_per_epoch, len(members)),
            "lr": self._rates[steps - 1][:, members].T.reshape(-1),
            "loss": values[:, 0].T.reshape(-1),
            "accuracy": values[:, 1].T.reshape(-1),
            "test_loss": tests[:, 0].T.reshape(-1),
            "test_accuracy": tests[:, 1].T.reshape(-1),
        }
        arrays = [pa.array(columns[f.name], type=f.type, from_pandas=False) for f in STEPS]
        return pa.RecordBatch.from_arrays(arrays, schema=STEPS)

    def _write(self, name: str, table: pa.RecordBatch, members: int) -> None:
        length = len(table) // members
        for place, member in enumerate(self.members):
            self._loggers[member].append(name, table.slice(place * length, length))
        if any(self._views):
            self._tell(name, arrays_of(table), self.members)

    def _tell(self, name: str, columns: dict[str, np.ndarray], members: Sequence[int]) -> None:
        """Pass the concatenated rows of members to their views."""
        length = len(columns["step"]) // len(members)
        for place, member in enumerate(members):
            part = {key: column[place * length : (place + 1) * length] for key, column in columns.items()}
            for view in self._views[member]:
                (view.steps if name == "steps" else view.census)(part)


def arrays_of(table: pa.RecordBatch) -> dict[str, np.ndarray]:
    """Return the columns of a table as arrays; strings become object arrays.

    Example:
        >>> arrays_of(pa.RecordBatch.from_pydict({"step": [1], "site": ["fc1"]}))["site"].tolist()
        ['fc1']
    """
    return {name: _array(table.column(name)) for name in table.schema.names}


def _array(column: pa.Array) -> np.ndarray:
    if not pa.types.is_string(column.type):
        return column.to_numpy(zero_copy_only=False)
    coded = column.dictionary_encode()  # few distinct strings, many rows
    return coded.dictionary.to_numpy(zero_copy_only=False)[coded.indices.to_numpy()]
