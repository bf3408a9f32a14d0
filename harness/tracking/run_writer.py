"""RunWriter: a training of one's own, written while it goes on, as the run on disk that ours leave."""

from __future__ import annotations

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

EVERY = 200  # steps after which their scalars are written, without a census


class RunWriter:
    """Writes `config.yaml`, `status.json`, the tables and TensorBoard's events of one run.

    Args:
        path: the run's folder.
        config: nested plain values.
        thresholds: of the states; kept with the run, so that reports use the same.
        tensorboard: whether an event file is written, too.
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
        self._metrics: tuple[str, ...] | None = None  # of the user's own, beside those of every run
        self._diverged: int | None = None  # from when on every loss is not finite
        self.late = False  # whether loss and metrics of a step come after its census

    def begin(self, steps: int) -> None:
        """Open the run: after 0 steps from nothing, else with the rows up to there.

        Raises:
            RuntimeError: another Recorder, of this process or another one, writes to the folder.
            OSError: it cannot be written, or holds files that no Recorder has made.
            DamagedFile: what it holds was changed, and cannot be continued (a `ValueError`).
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
            self._lock.release()
            raise

    def _open(self, folder: RunFolder, steps: int) -> None:
        found = [name for name in ("status.json", "config.yaml") if (self.path / name).exists()]
        if found and not (read_json(self.path / "status.json") or {}).get(MADE):
            raise FileExistsError(
                f"output: {self.path} holds a {found[0]} that no Recorder has made: give another name"
            )
        if steps and found:  # checked while the status still vouches for the tables
            load_status(self.path)
            for name in TABLES:
                read_table(self.path, name, ["step"])
        if steps == 0:
            folder.begin(**{MADE: True})
            folder.clear_tables()
        else:
            folder.write_status("running", **{MADE: True})
        kept = {name: keep_rows(self.path, name, steps) if steps else 0 for name in TABLES}
        self._writers = {name: TableWriter(self.path, name, kept[name]) for name in TABLES}
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
        """Remember one step; tensors stay on their device until they are written."""
        row = {"step": step, "lr": lr, "loss": loss, **metrics}
        self._steps.append({name: _held(value) for name, value in row.items()})
        if len(self._steps) > EVERY:
            self.flush(keep=int(self.late))

    def note(self, loss: Any, metrics: Mapping[str, Any]) -> None:
        """Say what is known of the last step only now."""
        if self._steps:
            self._steps[-1] |= {name: _held(value) for name, value in {"loss": loss, **metrics}.items()}

    def flush(self, keep: int = 0) -> None:
        """Write the steps that are remembered, but for the last few."""
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
        """Write a census, and what happened since the one before."""
        self.flush(keep=int(self.late))
        self._writers["census"].append({str(name): rows[name].to_numpy() for name in rows})
        for kind, site, units in self._transitions.add(rows):
            self.event(int(rows["step"].iloc[0]), kind, site=site, units=units)
        if self._board is not None:
            self._board.census(rows)

    def event(self, step: int, kind: str, *, site: str = "", units: int = 0, detail: str = "") -> None:
        """Write that something happened."""
        row = {"step": [step], "kind": [kind], "site": [site], "units": [units], "detail": [detail]}
        self._writers["events"].append(row)

    # --- its end ------------------------------------------------------------------------------------

    def finish(
        self,
        steps: int,
        error: BaseException | None = None,
        evidence: Mapping[str, pd.DataFrame] | None = None,
    ) -> None:
        """Close the run: tables as Parquet, final metrics, verdict and cause.

        Args:
            steps: that were completed.
            error: that ended the training; None: it came to its end.
            evidence: its tables, if there is any.
        """
        try:
            self.flush()
            if evidence is not None:
                write_evidence(self.path, evidence)
            for writer in self._writers.values():
                writer.finish()
            RunFolder(self.path).write_status(**self._facts(steps, error, evidence))
        except Exception as failure:  # what was written stays, and is no running run's
            RunFolder(self.path).write_status("failed", steps=steps, error=named_line(failure))
            raise
        finally:
            self.close()

    def close(self) -> None:
        """Leave the files as they are; nothing more is written."""
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


def _number(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _held(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def _values(column: Sequence[Any]) -> np.ndarray:
    """Numbers of every step; what was not given is NaN. A device is waited for once."""
    tensors = [k for k, value in enumerate(column) if isinstance(value, Tensor)]
    found = np.array([np.nan if v is None or isinstance(v, Tensor) else _number(v) for v in column])
    if tensors:
        found[tensors] = torch.stack([column[k].double().mean() for k in tensors]).cpu().numpy()
    return found
