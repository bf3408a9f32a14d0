"""A sweep: divide the remaining runs into tasks, run them in workers, and report progress."""

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
from harness.sweeps.cohorts import Task, divide, on_gpu
from harness.sweeps.job import JobResult, check_output, stored
from harness.sweeps.manifest import FOLDER, manifest_path, read_tasks, write_manifest
from harness.sweeps.pool import Died, Done, Progress, run_in_worker, run_tasks
from harness.sweeps.status import HEARTBEAT, write_heartbeat

#: Number of training inputs of each data set.
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
    """The runs of a sweep and their progress.

    Attributes:
        specs: name of a run → its specification, in Hydra's order; equal jobs are one run.
        tasks: tasks left to do: each has at least one run without a result.
        outcomes: name of a run → its outcome.
        steps: running task → completed steps.
        manifest: the file that stores the division into tasks.
        anew: whether the division is new, so that the file must be written.
    """

    specs: dict[str, RunSpec]
    tasks: list[Task]
    outcomes: dict[str, JobResult] = field(default_factory=dict)
    steps: dict[int, int] = field(default_factory=dict)
    manifest: Path = Path()
    anew: bool = True

    def total(self, task: int) -> int:
        """Steps of a task according to its specification; 0 if they depend on the user's own data."""
        spec = self.tasks[task].specs[0]
        size = SIZES.get(spec.data.name, getattr(spec.data, "train_size", 0))
        size = min(size, spec.data.subset or size)
        steps = spec.train.epochs * (size // max(1, min(spec.train.batch_size, size or 1)))
        return min(steps, spec.train.max_steps or steps)

    @property
    def under_way(self) -> float:
        """Progress of the running tasks, in runs."""
        return sum(
            len(self.tasks[task].specs) * step / max(1, self.total(task)) for task, step in self.steps.items()
        )

    @property
    def running(self) -> list[dict[str, int]]:
        """Running tasks: number of runs, completed steps and total steps."""
        return [
            {"runs": len(self.tasks[task].specs), "step": step, "total": self.total(task)}
            for task, step in self.steps.items()
        ]

    @property
    def output(self) -> Path:
        return Path(next(iter(self.specs.values())).output).expanduser()


def refuse_idle_axes(specs: Sequence[RunSpec]) -> None:
    """Refuse a sweep over a key that does not affect results, since its jobs would be the same run.

    Raises:
        ConfigError: two different jobs are the same run.
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


def plan_sweep(specs: Sequence[RunSpec], *, stack: bool = True, most: int | None = None) -> Sweep:
    """Name the runs, and divide those without a result into tasks, as stored in the manifest if possible.

    Args:
        specs: the jobs.
        stack: whether runs of the same shape train together.
        most: largest number of members of a cohort; None: as many as pay off on the device.
    """
    named = {run_folder(spec).name: spec for spec in specs}
    first = next(iter(named.values()))
    manifest = manifest_path(Path(first.output).expanduser(), [*named, f"{stack} {most}"])
    found = {name: stored(spec) for name, spec in named.items()}
    outcomes = {name: outcome for name, outcome in found.items() if outcome is not None}
    tasks = None if any(spec.force for spec in named.values()) else read_tasks(manifest, named)
    divided = {run_folder(spec).name for task in tasks or () for spec in task.specs}
    anew = tasks is None or not set(named) <= divided | set(outcomes)
    if tasks is None or anew:  # no manifest, or a result that existed then has been deleted
        tasks = divide([spec for name, spec in named.items() if name not in outcomes], stack=stack, most=most)
    tasks = [task for task in tasks if not all(run_folder(spec).name in outcomes for spec in task.specs)]
    return Sweep(named, tasks, outcomes, manifest=manifest, anew=anew)


def run_sweep(sweep: Sweep, workers: int | None = None, tell: Teller | None = None) -> None:
    """Run what is left of a sweep; afterwards `sweep.outcomes` has every run.

    Args:
        sweep: result of `plan_sweep`.
        workers: number of processes; None: one per core, or two that share a GPU between cohorts.
        tell: called with the sweep and each event.

    Raises:
        ConfigError: another sweep is writing to the same folder.
        KeyboardInterrupt: after the workers have saved their state.
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
        shared = any(task.stacked and on_gpu(task.specs[0]) for task in sweep.tasks)
        for event in run_tasks(sweep.tasks, run_task, workers or (2 if shared else cores())):
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
    """Mark the runs of a task whose worker died as failed, except those already done."""
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
    """Turn an OSError in the block into a ConfigError that names the folder.

    Raises:
        ConfigError: the folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        reason = f"{output} cannot be written ({error.strerror or error})"
        raise ConfigError("output", reason, hint="Give another folder with output=…") from None
