"""Tasks of a sweep for launchers that use other machines: one file that every job reads."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from harness.config import restore, to_mapping
from harness.store.files import write_json
from harness.store.reading import read_json
from harness.sweeps.cohort_job import run_task
from harness.sweeps.cohorts import Task
from harness.sweeps.job import JobResult
from harness.sweeps.sweep import Sweep

PLUGINS = Path(__file__).parent / "plugin"


def show_plugins() -> None:
    """Make Hydra find the plugins in `plugin/`, here and in the processes that launchers start."""
    if str(PLUGINS) not in sys.path:
        sys.path.append(str(PLUGINS))
        others = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
        os.environ["PYTHONPATH"] = os.pathsep.join([*others, str(PLUGINS)])


def write_tasks(sweep: Sweep) -> Path:
    """Write the tasks of a planned sweep next to its manifest.

    Each run is written in full, so the other machine does not need the configuration folders.
    """
    path = sweep.manifest.with_suffix(".jobs.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    tasks = [
        {"runs": [to_mapping(spec) for spec in task.specs], "why_single": task.why_single}
        for task in sweep.tasks
    ]
    write_json(path, {"folder": str(Path.cwd()), "tasks": tasks})
    return path.absolute()


def run_written(place: str) -> list[JobResult]:
    """Run the task given as `file:number`."""
    path, _, number = place.rpartition(":")
    stored = read_json(Path(path))
    if stored is None:
        raise FileNotFoundError(f"the tasks of this sweep are not at {path}: is the folder shared?")
    task = stored["tasks"][int(number)]
    if stored["folder"] not in sys.path:  # the user's own networks and data may be modules there
        sys.path.insert(0, stored["folder"])
    specs = tuple(restore(mapping) for mapping in task["runs"])
    return run_task(Task(specs, task["why_single"]), lambda step: None)
