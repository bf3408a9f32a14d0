"""RunWriter: write a user's own training, while it runs, in the format of our runs on disk."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from filelock import Timeout
from torch import Tensor

from harness.detector.states import Thresholds
from harness.detector.transitions import Transitions
from harness.detector.verdict import HEALTHY
from harness.report.tensorboard import RunBoard
from harness.store.evidence import write_evidence
from harness.store.folder import MADE, RunFolder, load_status
from harness.store.locks import lock_of
from harness.store.reading import named_line, read_json
from harness.store.runs import Run
from harness.store.schema import STEPS, TABLES
from harness.store.tables import read_table
from harness.store.writer import TableWriter, keep_rows
from harness.tracking.conclude import concluded, versions
from harness.training.run_logger import tell_before

log = logging.getLogger("harness")

EVERY = 200  # most steps to buffer between two censuses


class RunWriter:
    """Writes `config.yaml`, `status.json`, the tables and TensorBoard's events of one run.

    Args:
        path: the run's folder.
        config: nested plain values.
        thresholds: thresholds of the states; stored with the run, so that reports use the same ones.
        tensorboard: whether to write an event file too.
    """

    def __init__(
        self, path: Path, config: Mapping[str, Any], thresholds: Thresholds, *, tensorboard: bool = True
    ) -> None:
        detect = {"rare": thresholds.rare, "confidence": thresholds.confidence, "healthy": HEALTHY}
        self.path, self._config = path, {**config, "detect": {**detect, **(config.get("detect") or {})}}
        self._thresholds, self._tensorboard = thresholds, tensorboard
        self._writers: dict[str, TableWriter] = {}
        self._board: RunBoard | None = None
        self._steps: list[dict[str, Any]] = []
        self._transitions = Transitions()
        self._metrics: tuple[str, ...] | None = None  # user-defined metrics
        self._diverged: int | None = None  # step since which every loss is non-finite
        self._last: tuple[int, pd.DataFrame] | None = None  # step and rows of the last census
        self.late = False  # whether loss and metrics of a step arrive after its census

    def begin(self, steps: int) -> None:
        """Open the run: a new one if `steps` is 0, otherwise with its rows up to that step.

        Raises:
            RuntimeError: another Recorder, in this or another process, is writing to the folder.
            OSError: the folder cannot be written, or contains files not made by a Recorder.
            DamagedFile: its files were changed and cannot be continued (a `ValueError`).
        """
        folder = RunFolder(self.path)
        self._lock = lock_of(self.path)
        try:
            self._lock.acquire()
        except Timeout:
            raise RuntimeError(f"output: another Recorder writes to {self.path} right now") from None
        try:
            self._open(folder, steps)
        except BaseException:
            self.close()
            raise

    def _open(self, folder: RunFolder, steps: int) -> None:
        found = [name for name in ("status.json", "config.yaml") if (self.path / name).exists()]
        if found and not (read_json(self.path / "status.json") or {}).get(MADE):
            raise FileExistsError(
                f"output: {self.path} holds a {found[0]} that no Recorder has made: give another name"
            )
        if steps and found:  # check while the status still has the digests of the tables
            load_status(self.path)
            for name in TABLES:
                read_table(self.path, name, ["step"])
        if steps == 0:
            if found:
                log.warning("output: the earlier run in %s, of the same config, is replaced", self.path)
            folder.begin(**{MADE: True})
            folder.clear_tables()
        else:
            folder.write_status("running", **{MADE: True})
        kept = {name: keep_rows(self.path, name, steps) if steps else 0 for name in TABLES}
        for name in TABLES:
            self._writers[name] = TableWriter(self.path, name, kept[name])
        if steps:
            self._transitions.resume(read_table(self.path, "census").to_pandas())
        folder.write_config(self._config)
        seed = self._config.get("seed")
        facts = {MADE: True} if seed is None else {MADE: True, "seed": seed}
        folder.write_status("running", error=None, versions=versions(), **facts)
        if self._tensorboard:
            self._board = RunBoard(self.path)
            if steps:
                tell_before(self.path, [self._board])

    # --- while it trains ----------------------------------------------------------------------------

    def step(self, step: int, lr: float, loss: Any, metrics: Mapping[str, Any]) -> None:
        """Buffer one step; tensors stay on their device until they are written."""
        row = {"step": step, "lr": lr, "loss": loss, **metrics}
        self._steps.append({name: _held(value) for name, value in row.items()})
        if len(self._steps) > EVERY:
            self.flush(keep=int(self.late))

    def note(self, loss: Any, metrics: Mapping[str, Any]) -> None:
        """Add loss and metrics to the last buffered step."""
        if self._steps:
            self._steps[-1] |= {name: _held(value) for name, value in {"loss": loss, **metrics}.items()}

    def flush(self, keep: int = 0) -> None:
        """Write the buffered steps, except for the last `keep`."""
        cut = len(self._steps) - keep
        rows, self._steps = self._steps[:cut], self._steps[cut:]
        if not rows:
            return
        if self._metrics is None:
            own = dict.fromkeys(name for row in rows for name in row if name not in STEPS.names)
            self._metrics = tuple(own)
        names = (*STEPS.names, *self._metrics)
        columns = {name: _values([row.get(name) for row in rows]) for name in names}
        columns["step"] = columns["step"].astype(np.int64)
        for step, row, loss in zip(columns["step"].tolist(), rows, columns["loss"], strict=True):
            if row["loss"] is not None:
                self._diverged = None if np.isfinite(loss) else self._diverged or step
        self._writers["steps"].append(columns)
        if self._board is not None:
            self._board.steps(pd.DataFrame(columns))

    def census(self, rows: pd.DataFrame) -> None:
        """Write a census, and the deaths and revivals since the previous one."""
        self.flush(keep=int(self.late))
        rows = self._placed(rows)
        self._writers["census"].append({str(name): rows[name].to_numpy() for name in rows})
        for kind, site, units in self._transitions.add(rows):
            self.event(int(rows["step"].iloc[0]), kind, site=site, units=units)
        if self._board is not None:
            self._board.census(rows)

    def _placed(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows to write next: on disk, a second census of a step takes the place of the first."""
        step = int(rows["step"].iloc[0])
        if self._last is not None and self._last[0] == step:
            self._writers["census"].take_back()
            rows = pd.concat([self._last[1], rows], ignore_index=True)
        rows = most_informed(rows)
        self._last = step, rows
        return rows

    def event(self, step: int, kind: str, *, site: str = "", units: int = 0, detail: str = "") -> None:
        """Write an event."""
        row = {"step": [step], "kind": [kind], "site": [site], "units": [units], "detail": [detail]}
        self._writers["events"].append(row)

    # --- the end ------------------------------------------------------------------------------------

    def finish(
        self,
        steps: int,
        error: BaseException | None = None,
        evidence: Mapping[str, pd.DataFrame] | None = None,
    ) -> None:
        """Close the run: write Parquet tables, final metrics, verdict and cause.

        Args:
            steps: completed steps.
            error: the exception that ended the training, if any.
            evidence: tables of the evidence, if any.
        """
        try:
            self.flush()
            if evidence is not None:
                write_evidence(self.path, evidence)
            for writer in self._writers.values():
                writer.finish()
            RunFolder(self.path).write_status(**self._facts(steps, error, evidence))
        except Exception as failure:  # the written files stay, but the run must not count as running
            RunFolder(self.path).write_status("failed", steps=steps, error=named_line(failure))
            raise
        finally:
            self.close()

    def close(self) -> None:
        """Close the files without writing anything more."""
        for writer in self._writers.values():
            with suppress(OSError):
                writer.close()
        if self._board is not None:
            with suppress(OSError):
                self._board.close()
        self._lock.release()

    def _facts(
        self, steps: int, error: BaseException | None, evidence: Mapping[str, pd.DataFrame] | None
    ) -> dict[str, Any]:
        run, diverged = Run(self.path), self._diverged
        detect = self._thresholds, self._config["detect"]["healthy"]
        facts = concluded(run, *detect, steps=steps, diverged_at=diverged, diagnose=evidence is not None)
        if error is not None:
            state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            facts |= {"state": state, "error": named_line(error)}
        if self._board is not None:
            self._board.conclude(run.name, self._config, run.census, facts)
        return facts


def most_informed(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of one step's censuses, with one row per unit and evidence: that with the most inputs.

    Example:
        >>> twice = {"evidence": "stream", "site": "a", "unit": [0, 0, 1], "n": [8, 2, 8]}
        >>> most_informed(pd.DataFrame(twice)).n.tolist()
        [8, 8]
    """
    keys = ["evidence", "site", "unit"]
    if not rows.duplicated(keys).any():
        return rows
    best = rows.sort_values("n", kind="stable").drop_duplicates(keys, keep="last")
    return best.sort_index().reset_index(drop=True)


def _number(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _held(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def _values(column: Sequence[Any]) -> np.ndarray:
    """Convert a column to numbers, with NaN for missing ones; synchronise with the device only once."""
    tensors = [k for k, value in enumerate(column) if isinstance(value, Tensor)]
    found = np.array([np.nan if v is None or isinstance(v, Tensor) else _number(v) for v in column])
    if tensors:
        found[tensors] = torch.stack([column[k].double().mean() for k in tensors]).cpu().numpy()
    return found
