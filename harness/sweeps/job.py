"""One job: return the result of a finished run or train it, and write a status in every case."""

from __future__ import annotations

import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config import ConfigError, RunSpec, run_folder, to_mapping
from harness.store.files import write_text
from harness.store.folder import COMPLETE, RunFolder, read_status
from harness.store.locks import lock_of
from harness.store.reading import named_line
from harness.sweeps.preload import collector_at_rest
from harness.tracking.conclude import concluded, versions

if TYPE_CHECKING:
    from harness.store.runs import Run
    from harness.training.loop import TrainResult

Progress = Callable[[RunSpec, int], Any]  # (spec, total steps) → a listener that is a context manager


@dataclass(frozen=True)
class JobResult:
    """Outcome of a job.

    Attributes:
        path: the run's folder.
        state: state of the run.
        stored: whether the result already existed.
        error: one line, for a failed run.
        not_stacked: why it was trained by itself although it was planned as part of a stack.
    """

    path: Path
    state: str
    stored: bool = False
    error: str = ""
    not_stacked: str = ""


def check_output(spec: RunSpec) -> None:
    """Raise ConfigError early if results cannot be written."""
    root = Path(spec.output).expanduser()
    try:
        str(root).encode()
    except UnicodeEncodeError:
        problem = "holds bytes that are no text in this locale"
        raise ConfigError("output", problem, hint="Set LC_ALL=C.UTF-8, or PYTHONUTF8=1.") from None
    try:
        nearest = next(p for p in (root, *root.absolute().parents) if p.exists())
    except OSError as error:  # for example, a name that is too long
        raise ConfigError("output", f"cannot be a folder ({error.strerror})") from None
    if not nearest.is_dir():
        raise ConfigError("output", expected="a folder", came=f"{root} ({nearest} is a file)")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ConfigError("output", f"{nearest} is not writable", hint="Give another folder with output=…")


def stored(spec: RunSpec) -> JobResult | None:
    """Return the outcome of a run that already has a result, else None; does not import torch."""
    path = run_folder(spec)
    state = (read_status(path) or {}).get("state")
    return JobResult(path, state, stored=True) if state in COMPLETE and not spec.force else None


def missing(spec: RunSpec) -> JobResult:
    """Return the outcome of a run without a result."""
    status = read_status(run_folder(spec)) or {}
    return JobResult(
        run_folder(spec), status.get("state", "failed"), error=status.get("error") or "it did not run"
    )


def check_jobs(specs: Sequence[RunSpec]) -> None:
    """Check output, data and network of every job that has no result yet, before the sweep starts.

    Raises:
        ConfigError: a job cannot be run; nothing was written.
    """
    seen = set()
    for spec in specs:
        own = (spec.init, spec.bias) if spec.model.name == "custom" else ()
        shape = repr((spec.data, spec.model, spec.activation, spec.remedy, spec.device, spec.dtype, own))
        if shape not in seen and stored(spec) is None:
            seen.add(shape)
            check_output(spec)
            _prepare(spec)


def run_job(
    spec: RunSpec, progress: Progress | None = None, *, locked: bool = False, alone: bool = True
) -> JobResult:
    """Train a run to its end, continue it, or return the outcome if it is finished.

    Args:
        spec: the run.
        progress: creates the progress display, if any; it is notified of every step.
        locked: whether the caller holds the run's lock.
        alone: whether the run is outside a sweep. It then stores its evidence (`record.evidence`), and its
            row in TensorBoard shows a shortened configuration instead of the whole one.

    Returns:
        The outcome. A failure is an outcome too; its traceback is in `error.txt` in the folder.

    Raises:
        ConfigError: the run cannot be carried out as configured.
        KeyboardInterrupt: after the state has been saved.
    """
    from filelock import Timeout

    found = stored(spec)
    if found is not None:
        return found
    check_output(spec)
    data, model = _prepare(spec)
    try:
        folder = RunFolder(run_folder(spec))
    except OSError as error:
        raise ConfigError("output", f"cannot make {run_folder(spec)} ({error.strerror})") from None
    try:
        with nullcontext() if locked else lock_of(folder.path):
            return _train(spec, data, model, folder, progress, alone=alone)
    except Timeout:
        raise ConfigError(
            "output",
            f"another process is training {folder.path} right now",
            hint="Wait for it, or change output.",
        ) from None


def _prepare(spec: RunSpec) -> tuple[Any, Any]:
    """Load the data and build the network, so that errors show before anything is written."""
    with collector_at_rest():
        from torch.nn.modules.batchnorm import _NormBase

        from harness.training.data import load
        from harness.training.device import place
        from harness.training.models import build
        from harness.training.remedy_runner import reach

    device, dtype = place(spec)
    try:
        data = load(spec, device, dtype)
        model = build(spec, data.shape, data.classes)
    except (RuntimeError, MemoryError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError("model", f"this run cannot be built ({reason})") from None
    if data.batch_size == 1 and any(isinstance(m, _NormBase) for m in model.modules()):
        raise ConfigError(
            "train.batch_size", "batch normalisation needs at least 2 inputs in a batch, but there is 1"
        )
    reach(spec, model, data.shape)
    return data, model


def _train(
    spec: RunSpec, data: Any, model: Any, folder: RunFolder, progress: Progress | None, *, alone: bool
) -> JobResult:
    from harness.store.runs import Run
    from harness.training import checkpoint
    from harness.training.loop import train
    from harness.training.step_counts import total_steps

    total = total_steps(spec, data.steps_per_epoch)
    if spec.force or not checkpoint.continues(folder.path, total):
        folder.clear()
    board = None
    began, earlier = time.monotonic(), folder.status.get("seconds", 0.0)

    def seconds() -> float:
        return round(earlier + time.monotonic() - began, 3)

    try:
        folder.write_config(to_mapping(spec))
        folder.write_status("running", seed=spec.seed, versions=versions(), hardware=hardware(spec))
        board = _board(spec, folder.path)
        display = nullcontext() if progress is None else progress(spec, total)
        with display as bar:
            views = [view for view in (board, bar) if view is not None]
            keeps = alone and spec.record.evidence and spec.record.enabled
            ending = train(spec, data, folder, views, evidence=keeps, model=model)
        result = Run(folder.path)
        facts = conclusion(spec, result, ending, diagnose=bool(keeps and result.evidence))
        if spec.record.enabled and not earlier:  # unknown for a continued run
            facts["census_seconds"] = round(ending.census_seconds, 3)
        if board is not None:
            from harness.report.tensorboard import short_config

            config = to_mapping(spec)
            shown = short_config(config) if alone else config
            board.conclude(folder.path.name, shown, result.census, facts)
        folder.write_status(**facts, seconds=seconds())
    except KeyboardInterrupt:
        folder.write_status("interrupted", seconds=seconds())
        raise
    except ConfigError:
        raise
    except Exception as error:
        return failed(folder, error, seconds())
    finally:
        if board is not None:
            board.close()
    return JobResult(folder.path, facts["state"])


def failed(folder: RunFolder, error: Exception, seconds: float) -> JobResult:
    """Record and return the outcome of a training that raised; on a full disk nothing can be recorded."""
    line = named_line(error)
    try:
        write_text(folder.path / "error.txt", traceback.format_exc())
        folder.write_status("failed", seconds=seconds, error=line)
    except OSError:
        pass
    return JobResult(folder.path, "failed", error=line)


def conclusion(spec: RunSpec, run: Run, ending: TrainResult, *, diagnose: bool = False) -> dict[str, Any]:
    """Return the facts for the status of a run that was trained to its end."""
    from harness.detector.states import Thresholds

    detect = Thresholds.of(spec.detect), spec.detect.healthy
    facts = concluded(run, *detect, steps=ending.steps, diverged_at=ending.diverged_at, diagnose=diagnose)
    return facts | ({"stopped": ending.stopped} if ending.stopped else {})


def _board(spec: RunSpec, path: Path) -> Any:
    """Open a new TensorBoard writer; a continued run fills it from its stored tables first."""
    if not spec.record.tensorboard:
        return None
    from harness.report.tensorboard import RunBoard

    return RunBoard(path)


def hardware(spec: RunSpec) -> dict[str, Any]:
    """Describe the device and machine of the run."""
    import torch

    from harness.training.device import place

    device, _ = place(spec)
    name = (
        torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine()
    )
    return {"device": device.type, "name": name, "cores": os.cpu_count(), "platform": sys.platform}
