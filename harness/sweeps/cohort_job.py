"""One cohort: train its members as one stack, and leave each the folder that it would have alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config import RunSpec, run_folder, to_mapping
from harness.store.files import side_by_side
from harness.store.folder import RunFolder
from harness.sweeps.cohorts import Task
from harness.sweeps.job import Outcome, failed, final_metrics, hardware, run_job, stored, versions

if TYPE_CHECKING:
    from harness.training.loop import Ending

FOLDER = ".cohorts"  # in the folder of results: what a cohort needs to be continued


def run_task(task: Task, tick: Callable[[int], None]) -> list[Outcome]:
    """Carry out a task: a cohort, or one run; what goes wrong is an outcome."""
    if task.stacked:
        return run_cohort(task, tick)
    return [_alone(spec, tick) for spec in task.specs]


def run_cohort(task: Task, tick: Callable[[int], None] | None = None) -> list[Outcome]:
    """Train or continue a cohort; members that have a result are left as they are.

    Args:
        task: its members.
        tick: told of completed steps.

    Returns:
        The outcomes, in the order of the members. If the stack cannot be trained, each member is tried
        alone, so that one bad member fails by itself.

    Raises:
        KeyboardInterrupt: after the state has been kept.
    """
    from filelock import FileLock, Timeout

    specs = task.specs
    found = [stored(spec) for spec in specs]
    if all(found):
        return [outcome for outcome in found if outcome is not None]
    keep = Path(specs[0].output).expanduser() / FOLDER / task.name
    try:
        keep.mkdir(parents=True, exist_ok=True)
        with ExitStack() as locks:
            for path in [keep, *(run_folder(spec) for spec in specs)]:
                path.mkdir(parents=True, exist_ok=True)
                locks.enter_context(FileLock(path / ".lock", timeout=0))
            outcomes = _train(specs, found, keep, tick)
    except Timeout as error:
        folder = Path(error.lock_file).parent
        return [
            Outcome(run_folder(spec), "failed", error=f"another process is training {folder} right now")
            for spec in specs
        ]
    except OSError as error:
        return [Outcome(run_folder(spec), "failed", error=str(error)) for spec in specs]
    _remove(keep)
    return outcomes


def _train(
    specs: Sequence[RunSpec], found: Sequence[Outcome | None], keep: Path, tick: Callable[[int], None] | None
) -> list[Outcome]:
    from harness.training.stacked import train_cohort

    began = time.time()
    folders = [RunFolder(run_folder(spec)) for spec in specs]
    fresh = not any(keep.glob("*.pt"))
    if fresh and any(found):  # somebody else trained a member meanwhile: it is left alone
        quiet: Callable[[int], None] = tick or (lambda step: None)
        return [
            outcome or _alone(spec, quiet, locked=True) for spec, outcome in zip(specs, found, strict=True)
        ]
    facts = {"versions": versions(), "hardware": hardware(specs[0]), "cohort": keep.name}

    def begin(place: int) -> None:
        if fresh:
            folders[place].clear()
        if found[place] is None:
            folders[place].write_config(to_mapping(specs[place]))
            folders[place].write_status("running", seed=specs[place].seed, **facts)

    side_by_side(begin, range(len(specs)))
    try:
        endings = train_cohort(specs, folders, keep, tick)
    except KeyboardInterrupt:
        for folder in folders:
            folder.write_status("interrupted")
        raise
    except Exception as error:  # whose fault it is shows when each goes alone
        for folder in folders:
            folder.clear()
        outcomes = [_alone(spec, tick or (lambda step: None), locked=True) for spec in specs]
        why = " ".join(f"{type(error).__name__}: {error}".split())
        for folder, outcome in zip(folders, outcomes, strict=True):
            with suppress(OSError):  # the outcomes stand, with or without this note
                folder.write_status(outcome.state, not_stacked=why)
        return [replace(outcome, not_stacked=why) for outcome in outcomes]
    seconds = round((time.time() - began) / len(specs), 3)
    judged = [
        outcome or _judge(spec, folder, ending, seconds)
        for spec, folder, ending, outcome in zip(specs, folders, endings, found, strict=True)
    ]
    return side_by_side(_end, zip(folders, judged, strict=True))


def _judge(spec: RunSpec, folder: RunFolder, ending: Ending, seconds: float) -> dict[str, Any] | Outcome:
    """Metrics, verdict and view of a member that has been trained: its last status, or that this failed."""
    from harness.store.runs import Run

    facts: dict[str, Any] = {
        "state": "finished" if ending.diverged_at is None else "diverged",
        "seconds": seconds,
        "steps": ending.steps,
        "diverged_at": ending.diverged_at,
    }
    try:
        run = Run(folder.path)
        facts["final"], facts["verdict"] = final_metrics(spec, run, ending.diverged_at)
        if spec.record.tensorboard:
            from harness.report.tensorboard import rebuild

            rebuild(run, maps=False, status=facts)
    except Exception as error:
        return failed(folder, error, seconds)
    return facts | {"error": None}


def _end(judged: tuple[RunFolder, dict[str, Any] | Outcome]) -> Outcome:
    """Write the status of a member that was judged."""
    folder, facts = judged
    if isinstance(facts, Outcome):
        return facts
    try:
        folder.write_status(**facts)
    except OSError as error:
        return failed(folder, error, facts["seconds"])
    return Outcome(folder.path, facts["state"])


def _alone(spec: RunSpec, tick: Callable[[int], None], *, locked: bool = False) -> Outcome:
    """One run by itself; even a refusal is an outcome here, since the others go on."""
    from harness.config import ConfigError

    try:
        return run_job(spec, lambda spec, total: _Ticks(tick), locked=locked, alone=False)
    except ConfigError as error:
        return Outcome(run_folder(spec), "failed", error=str(error))


class _Ticks:
    """A listener that passes on completed steps alone."""

    def __init__(self, tick: Callable[[int], None]) -> None:
        self.tick = tick

    def __enter__(self) -> _Ticks:
        return self

    def __exit__(self, *_: Any) -> None:
        return None

    def steps(self, rows: Any) -> None:
        """Nothing to do."""

    def census(self, rows: Any) -> None:
        """Nothing to do."""


def _remove(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink(missing_ok=True)
    folder.rmdir()
