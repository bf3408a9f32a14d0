"""Tasks of a sweep for launchers that reach other machines: one file that every job can read."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra

from harness.config import compose, run_folder
from harness.store.files import write_json
from harness.store.reading import read_json
from harness.sweeps.cohort_job import run_task
from harness.sweeps.cohorts import Task
from harness.sweeps.job import Outcome
from harness.sweeps.sweep import Sweep

PLUGINS = Path(__file__).parent / "plugin"


def show_plugins() -> None:
    """Let Hydra find what lies in `plugin/`, here and in the processes that launchers start."""
    if str(PLUGINS) not in sys.path:
        sys.path.append(str(PLUGINS))
        others = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
        os.environ["PYTHONPATH"] = os.pathsep.join([*others, str(PLUGINS)])


def write_tasks(sweep: Sweep, overrides: Mapping[str, Sequence[str]]) -> Path:
    """Write the tasks beside the sweep's manifest.

    Args:
        sweep: planned.
        overrides: name of a run → the command line of its job.
    """
    path = sweep.manifest.with_suffix(".jobs.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    tasks = [
        {"jobs": [list(overrides[run_folder(s).name]) for s in task.specs], "why_single": task.why_single}
        for task in sweep.tasks
    ]
    write_json(path, {"tasks": tasks})
    return path.absolute()


def run_written(place: str) -> list[Outcome]:
    """Carry out the task `file:number`."""
    path, _, number = place.rpartition(":")
    kept = read_json(Path(path))
    if kept is None:
        raise FileNotFoundError(f"the tasks of this sweep are not at {path}: is the folder shared?")
    task = kept["tasks"][int(number)]
    with _another_hydra():
        specs = tuple(compose(job) for job in task["jobs"])
    return run_task(Task(specs, task["why_single"]), lambda step: None)


@contextmanager
def _another_hydra() -> Iterator[None]:
    """Compose within a job, where Hydra is at work already."""
    instance = GlobalHydra.instance()
    outer = instance.hydra
    instance.clear()
    try:
        yield
    finally:
        instance.hydra = outer
