"""One cohort: train its members as one stack, and write each the folder that it would have by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from harness.config import RunSpec, run_folder, to_mapping
from harness.store.files import side_by_side, write_text
from harness.store.folder import COMPLETE, RunFolder
from harness.store.locks import PATIENCE, lock_of
from harness.store.reading import named_line
from harness.sweeps.cohorts import Task
from harness.sweeps.descriptors import make_room
from harness.sweeps.job import JobResult, conclusion, failed, hardware, run_job, stored, versions

if TYPE_CHECKING:
    from harness.report.tensorboard import RunBoard
    from harness.training.loop import TrainResult

FOLDER = ".cohorts"  # inside the folder of results: checkpoints of cohorts


def run_task(task: Task, tick: Callable[[int], None]) -> list[JobResult]:
    """Run a task, either a cohort or a single run. Errors are returned as outcomes, never raised."""
    if task.stacked:
        return run_cohort(task, tick)
    return [_alone(spec, tick) for spec in task.specs]


def run_cohort(task: Task, tick: Callable[[int], None] | None = None) -> list[JobResult]:
    """Train or continue a cohort; members that already have a result are not trained again.

    Args:
        task: the cohort.
        tick: called with the number of completed steps.

    Returns:
        The outcomes, in the order of the members. A member that another process is training, or whose folder
        cannot be written, fails, and the others train without it. If the stack cannot be trained, each member
        is trained by itself. If results cannot be written, the members fail and the last checkpoint remains.

    Raises:
        KeyboardInterrupt: after the state has been saved.
    """
    specs = task.specs
    known = {place: found for place, spec in enumerate(specs) if (found := stored(spec))}
    if len(known) < len(specs):
        keep = Path(specs[0].output).expanduser() / FOLDER / task.name
        try:
            until = time.monotonic() + PATIENCE
            make_room(len(specs))
            with ExitStack() as locks:
                _hold(keep, locks, until)
                left = [place for place in range(len(specs)) if place not in known]
                known |= {place: outcome for place in left if (outcome := _taken(specs[place], locks, until))}
                outcomes = known | _train(specs, known, keep, tick or (lambda step: None))
        except OSError as error:
            outcomes = {place: known.get(place) or _refused(spec, error) for place, spec in enumerate(specs)}
        else:
            if all(outcomes[place].state in COMPLETE for place in outcomes.keys() - known.keys()):
                _remove(keep)
        known = outcomes
    return [known[place] for place in range(len(specs))]


def _hold(folder: Path, locks: ExitStack, until: float) -> None:
    """Create a folder and acquire its lock.

    Raises:
        OSError: it cannot be written, or another process still holds the lock at the time `until`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    locks.enter_context(lock_of(folder, max(until - time.monotonic(), 0.0)))


def _taken(spec: RunSpec, locks: ExitStack, until: float) -> JobResult | None:
    """Lock a member's folder; return its outcome if that fails or if it has a result by now."""
    try:
        _hold(run_folder(spec), locks, until)
    except OSError as error:
        return _refused(spec, error)
    return stored(spec)


def _refused(spec: RunSpec, error: OSError) -> JobResult:
    from filelock import Timeout

    busy = isinstance(error, Timeout)
    why = f"another process is training {Path(error.lock_file).parent} right now" if busy else str(error)
    return JobResult(run_folder(spec), "failed", error=why)


def _train(
    specs: Sequence[RunSpec], known: Mapping[int, JobResult], keep: Path, tick: Callable[[int], None]
) -> dict[int, JobResult]:
    """Train the members without an outcome in `known`, and return their outcomes."""
    from harness.training.stacked import checkpoint

    left = [place for place in range(len(specs)) if place not in known]
    if not left:
        return {}
    began = time.monotonic()
    # True if the process was killed after training, between writing the results of the members. Then the
    # checkpoint is of all members; otherwise members with a result do not take part.
    trained = bool(known) and checkpoint.done(keep, specs, [run_folder(spec) for spec in specs])
    places = list(range(len(specs))) if trained else left
    own = [specs[place] for place in places]
    fresh = checkpoint.load(keep, own, [run_folder(spec) for spec in own]) is None
    facts = {"versions": versions(), "hardware": hardware(specs[0]), "cohort": keep.name}

    def begin(place: int) -> JobResult | None:
        try:
            folder = RunFolder(run_folder(specs[place]))
            if fresh:
                folder.clear()
            folder.write_config(to_mapping(specs[place]))
            folder.write_status("running", seed=specs[place].seed, **facts)
        except OSError as error:
            return _refused(specs[place], error)
        return None

    begun = zip(left, side_by_side(begin, left), strict=True)
    refused = {place: outcome for place, outcome in begun if outcome is not None}
    if refused:
        return refused | _train(specs, {**known, **refused}, keep, tick)
    folders = {place: RunFolder(run_folder(specs[place])) for place in places}
    with _boards(specs, {place: folders[place].path for place in left}) as boards:
        return _trained(specs, folders, boards, left, keep, tick, began)


def _trained(
    specs: Sequence[RunSpec],
    folders: Mapping[int, RunFolder],
    boards: Mapping[int, RunBoard],
    left: Sequence[int],
    keep: Path,
    tick: Callable[[int], None],
    began: float,
) -> dict[int, JobResult]:
    """Train the members in `folders`, and write the results of those in `left`."""
    from harness.training.stacked import train_cohort

    own, views = [specs[k] for k in folders], [[boards[k]] if k in boards else [] for k in folders]
    try:
        found = train_cohort(own, list(folders.values()), keep, tick, views)
        endings = dict(zip(folders, found, strict=True))
    except KeyboardInterrupt:
        for place in left:
            folders[place].write_status("interrupted")
        raise
    except OSError as error:  # a full disk, for example: the checkpoint can still be continued
        seconds = round(time.monotonic() - began, 3)
        return {place: failed(folders[place], error, seconds) for place in left}
    except Exception as error:  # train each member by itself to see which one fails
        for board in boards.values():
            _close(board)
        return _one_by_one({place: folders[place] for place in left}, specs, tick, error)
    seconds = round((time.monotonic() - began) / len(left), 3)
    # each member is charged an equal share of the stack's time
    endings = {k: replace(one, census_seconds=one.census_seconds / len(left)) for k, one in endings.items()}
    judged = [_judge(specs[k], folders[k], endings[k], seconds, boards.get(k)) for k in left]
    ended = side_by_side(_end, zip([folders[place] for place in left], judged, strict=True))
    return dict(zip(left, ended, strict=True))


def _one_by_one(
    folders: Mapping[int, RunFolder],
    specs: Sequence[RunSpec],
    tick: Callable[[int], None],
    error: Exception,
) -> dict[int, JobResult]:
    """Train each member of a failed stack by itself."""
    for folder in folders.values():
        folder.clear()
    why = named_line(error)
    outcomes = {place: _alone(specs[place], tick, locked=True) for place in folders}
    for place, folder in folders.items():
        found = outcomes[place]
        reason = {"error": found.error} if found.error else {}
        with suppress(OSError):  # the outcomes are valid without this note
            folder.write_status(found.state, not_stacked=why, **reason)
            if found.error and not (folder.path / "error.txt").exists():  # it could not begin
                write_text(folder.path / "error.txt", f"{found.error}\n")
    return {place: replace(outcome, not_stacked=why) for place, outcome in outcomes.items()}


@contextmanager
def _boards(specs: Sequence[RunSpec], folders: Mapping[int, Path]) -> Iterator[dict[int, RunBoard]]:
    """Open a TensorBoard writer for each member in `folders` that records to TensorBoard."""
    wanted = [place for place in folders if specs[place].record.tensorboard]
    with ExitStack() as files:
        boards: dict[int, RunBoard] = {}
        if wanted:
            from harness.report.tensorboard import RunBoard

            for place in wanted:
                boards[place] = RunBoard(folders[place])
                files.callback(_close, boards[place])
        yield boards


def _close(board: RunBoard) -> None:
    with suppress(OSError):  # a full disk: TensorBoard's files can be rebuilt from the results
        board.close()


def _judge(
    spec: RunSpec, folder: RunFolder, ending: TrainResult, seconds: float, board: RunBoard | None
) -> dict[str, Any] | JobResult:
    """Compute metrics and verdict of a trained member: its final status, or the outcome if this fails."""
    from harness.store.runs import Run

    try:
        run = Run(folder.path)
        facts = {"seconds": seconds, **conclusion(spec, run, ending)}
        if spec.record.enabled:
            facts["census_seconds"] = round(ending.census_seconds, 3)
        if board is not None:
            board.conclude(run.name, to_mapping(spec), run.census, facts)
    except Exception as error:
        return failed(folder, error, seconds)
    return facts


def _end(judged: tuple[RunFolder, dict[str, Any] | JobResult]) -> JobResult:
    """Write the final status of a member from `_judge`."""
    folder, facts = judged
    if isinstance(facts, JobResult):
        return facts
    try:
        folder.write_status(**facts)
    except OSError as error:
        return failed(folder, error, facts["seconds"])
    return JobResult(folder.path, facts["state"])


def _alone(spec: RunSpec, tick: Callable[[int], None], *, locked: bool = False) -> JobResult:
    """Train one run by itself; a ConfigError becomes an outcome too, so that the other runs go on."""
    from harness.config import ConfigError

    try:
        return run_job(spec, lambda spec, total: _telling(tick), locked=locked, alone=False)
    except ConfigError as error:
        return JobResult(run_folder(spec), "failed", error=str(error))


def _telling(tick: Callable[[int], None]) -> AbstractContextManager[Any]:
    """Return a listener that only reports completed steps."""
    return nullcontext(SimpleNamespace(tick=tick, steps=lambda rows: None, census=lambda rows: None))


def _remove(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink(missing_ok=True)
    folder.rmdir()
