"""A sweep: what is left to do is divided, carried out by workers, and told to whoever shows it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.config import ConfigError, RunSpec, run_folder, to_mapping
from harness.config.stored import flatten
from harness.store.files import cores
from harness.store.locks import lock_of
from harness.sweeps.cohort_job import run_task
from harness.sweeps.cohorts import MOST, Task, divide
from harness.sweeps.job import JobResult, check_output, stored
from harness.sweeps.manifest import FOLDER, manifest_path, read_tasks, write_manifest
from harness.sweeps.pool import Died, Done, Progress, run_in_worker, run_tasks
from harness.sweeps.status import HEARTBEAT, write_heartbeat

#: Training inputs of the data sets.
SIZES = {
    "digits": 1437,
    "mnist": 60_000,
    "fashion_mnist": 60_000,
    "kmnist": 60_000,
    "cifar10": 50_000,
    "cifar100": 50_000,
}
Teller = Callable[["Sweep", Progress | Done | Died], None]


@dataclass
class Sweep:
    """The runs of a sweep, and how far they are.

    Attributes:
        specs: name of a run → its specification, in Hydra's order; equal jobs are one run.
        tasks: what has to be done; runs with a stored result are in none.
        outcomes: name of a run → what became of it.
        steps: task that is running → completed steps.
        manifest: the file that keeps the division.
        anew: whether the division is not that of the file.
    """

    specs: dict[str, RunSpec]
    tasks: list[Task]
    outcomes: dict[str, JobResult] = field(default_factory=dict)
    steps: dict[int, int] = field(default_factory=dict)
    manifest: Path = Path()
    anew: bool = True

    def total(self, task: int) -> int:
        """Steps of a task, as far as its specification tells: 0 if the data decide."""
        spec = self.tasks[task].specs[0]
        size = SIZES.get(spec.data.name, getattr(spec.data, "train_size", 0))
        size = min(size, spec.data.subset or size)
        steps = spec.train.epochs * (size // max(1, min(spec.train.batch_size, size or 1)))
        return min(steps, spec.train.max_steps or steps)

    @property
    def under_way(self) -> float:
        """How many runs' worth of steps the workers have done in their present tasks."""
        return sum(
            len(self.tasks[task].specs) * step / max(1, self.total(task)) for task, step in self.steps.items()
        )

    @property
    def running(self) -> list[dict[str, int]]:
        """What the workers do: runs of the task, completed steps and their total."""
        return [
            {"runs": len(self.tasks[task].specs), "step": step, "total": self.total(task)}
            for task, step in self.steps.items()
        ]

    @property
    def output(self) -> Path:
        return Path(next(iter(self.specs.values())).output).expanduser()


def refuse_idle_axes(specs: Sequence[RunSpec]) -> None:
    """Refuse a sweep over what does not decide a result: such jobs would be one run.

    Raises:
        ConfigError: two jobs of one run differ.
    """
    first: dict[str, RunSpec] = {}
    for spec in specs:
        other = first.setdefault(run_folder(spec).name, spec)
        if other != spec:
            mine, theirs = flatten(to_mapping(spec)), flatten(to_mapping(other))
            key = next(key for key in mine if mine[key] != theirs.get(key))
            raise ConfigError(
                key, "cannot be swept over: it does not decide a result", hint="Its jobs would be one run."
            )


def plan_sweep(specs: Sequence[RunSpec], *, stack: bool = True, most: int = MOST) -> Sweep:
    """Name the runs, leave out those with a result, and divide the others as before, or anew.

    Args:
        specs: of the jobs.
        stack: whether runs of one shape train together.
        most: members of a cohort at most.
    """
    named = {run_folder(spec).name: spec for spec in specs}
    first = next(iter(named.values()))
    manifest = manifest_path(Path(first.output).expanduser(), [*named, f"{stack} {most}"])
    found = {name: stored(spec) for name, spec in named.items()}
    outcomes = {name: outcome for name, outcome in found.items() if outcome is not None}
    tasks = None if any(spec.force for spec in named.values()) else read_tasks(manifest, named)
    divided = {run_folder(spec).name for task in tasks or () for spec in task.specs}
    anew = tasks is None or not set(named) <= divided | set(outcomes)
    if tasks is None or anew:  # a result is gone that was there then
        tasks = divide([spec for name, spec in named.items() if name not in outcomes], stack=stack, most=most)
    tasks = [task for task in tasks if not all(run_folder(spec).name in outcomes for spec in task.specs)]
    return Sweep(named, tasks, outcomes, manifest=manifest, anew=anew)


def run_sweep(sweep: Sweep, workers: int | None = None, tell: Teller | None = None) -> None:
    """Carry out what is left of a sweep; `sweep.outcomes` has every run afterwards.

    Args:
        sweep: from `plan_sweep`.
        workers: processes; None: one per core.
        tell: told of everything that happens.

    Raises:
        ConfigError: another sweep is writing to the same folder.
        KeyboardInterrupt: after the workers have kept their state.
    """
    if not sweep.tasks:
        return
    check_output(next(iter(sweep.specs.values())))
    with _alone_in(sweep.output):
        if sweep.anew:
            names = {id(spec): name for name, spec in sweep.specs.items()}
            with _written(sweep.output):
                write_manifest(sweep.manifest, list(sweep.specs), sweep.tasks, names)
        began, before, last_beat = time.monotonic(), len(sweep.outcomes), 0.0
        for event in run_tasks(sweep.tasks, run_task, workers or cores()):
            task = sweep.tasks[event.task]
            sweep.steps.pop(event.task, None)
            if isinstance(event, Progress):
                sweep.steps[event.task] = event.step
            elif isinstance(event, Done):
                for spec, outcome in zip(task.specs, event.outcomes, strict=True):
                    sweep.outcomes[run_folder(spec).name] = outcome
            else:
                _mark_failed(sweep, task, event.reason)
            now = time.monotonic()
            if now - last_beat > 1:
                last_beat = now
                write_heartbeat(sweep.output, sweep.running, len(sweep.outcomes) - before, now - began)
            if tell is not None:
                tell(sweep, event)
        (sweep.output / FOLDER / HEARTBEAT).unlink(missing_ok=True)
        if any(spec.record.tensorboard for spec in sweep.specs.values()):
            run_in_worker(_finish, sweep.output)


def _finish(output: Path) -> None:
    from harness.report.dashboard_command import finish_sweep

    finish_sweep(output)


def _mark_failed(sweep: Sweep, task: Task, reason: str) -> None:
    """A worker died with the task: its runs have failed, unless they were done before."""
    from harness.store.folder import RunFolder

    for spec in task.specs:
        outcome = stored(replace(spec, force=False))
        if outcome is None:
            folder = RunFolder(run_folder(spec))
            folder.write_config(to_mapping(spec))
            folder.write_status("failed", error=reason)
            outcome = JobResult(run_folder(spec), "failed", error=reason)
        sweep.outcomes[run_folder(spec).name] = outcome


@contextmanager
def _alone_in(output: Path) -> Iterator[None]:
    from filelock import Timeout

    folder = output / FOLDER
    lock, note = lock_of(folder), folder / ".process"
    with _written(output):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            who = note.read_text() if note.is_file() else "unknown"
            raise ConfigError(
                "output",
                f"another sweep (process {who}) is writing to {output} right now",
                hint="Wait for it, or give another output=…",
            ) from None
    try:
        with _written(output):
            note.write_text(str(os.getpid()))
        yield
    finally:
        lock.release()


@contextmanager
def _written(output: Path) -> Iterator[None]:
    """What the block writes must be there before anything is trained.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        reason = f"{output} cannot be written ({error.strerror or error})"
        raise ConfigError("output", reason, hint="Give another folder with output=…") from None
