"""Progress of the runs in a folder, read from disk only, so that any process can show it at any time."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.store.files import write_json
from harness.store.folder import load_config, load_status
from harness.store.locks import is_held
from harness.store.reading import DamagedFile, Types, read_object
from harness.store.walk import CENSUS, MARKS, folders_of
from harness.sweeps.manifest import FOLDER, manifests

STALE = 15.0  # seconds without a heartbeat after which a sweep counts as stopped
HEARTBEAT = "pulse.json"
NUMBERS: Types = dict.fromkeys(("seconds", "at", "done"), (int, float))  # expected types in the file


def write_heartbeat(output: Path, tasks: list[dict[str, Any]], done: int, seconds: float) -> None:
    """Write a heartbeat: the current tasks of the sweep in `output`, finished runs and elapsed seconds."""
    write_json(
        output / FOLDER / HEARTBEAT, {"seconds": seconds, "at": time.time(), "done": done, "tasks": tasks}
    )


@dataclass
class Status:
    """Status of the runs in a folder.

    Attributes:
        states: state → number of runs; "waiting": planned but not started.
        errors: run → its error, for failed runs.
        damaged: why damaged runs cannot be read.
        tasks: current tasks of a running sweep: runs, step, total.
        rate: finished runs per minute of that sweep; None if unknown or no sweep is running.
        left: seconds until its end at that rate; None if unknown.
    """

    states: Counter[str] = field(default_factory=Counter)
    errors: dict[str, str] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)
    tasks: list[dict[str, Any]] = field(default_factory=list)
    rate: float | None = None
    left: float | None = None

    @property
    def total(self) -> int:
        return sum(self.states.values())


def status_of(root: Path) -> Status:
    """Return the status of all runs in or below a folder, including planned ones.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"expected a folder with runs, but there is no folder {root}")
    found = Status()
    seen: set[str] = set()
    for folder in folders_of(root, lambda names: not MARKS.isdisjoint(names)):
        state, error = _state_of(folder)
        found.states[state] += 1
        seen.add(folder.name)
        if state == "damaged":
            found.damaged.append(error)
        elif state == "failed":
            found.errors[folder.name] = error
    planned = {run for manifest in manifests(root) for run in manifest.get("runs", ())}
    found.states["waiting"] += len(planned - seen)
    found.states += Counter()  # without zeros
    if not (found.states["running"] or found.states["waiting"]):  # what the heartbeat says has ended
        return found
    with contextlib.suppress(OSError, DamagedFile, KeyError, TypeError):  # ignore a damaged heartbeat
        _take_heartbeat(found, read_object(root / FOLDER / HEARTBEAT, NUMBERS))
    return found


def _state_of(folder: Path) -> tuple[str, str]:
    """Return a run's state, and its error if it failed or is damaged."""
    try:
        load_config(folder)
        status = load_status(folder)
    except FileNotFoundError as error:
        gone = Path(str(error.args[0])).name == "status.json" and not (folder / CENSUS).exists()
        return ("waiting", "") if gone else ("damaged", f"{error.args[0]} is not there")
    except DamagedFile as damage:
        return "damaged", str(damage)
    state = str(status["state"])
    if state == "running" and not is_held(folder):  # its process was killed
        state = "interrupted"
    return state, str(status.get("error") or "")


def _take_heartbeat(found: Status, heartbeat: dict[str, Any]) -> None:
    """Add the current tasks, rate and remaining time, if the heartbeat is recent."""
    if time.time() - heartbeat["at"] >= STALE:
        return
    tasks, passed = heartbeat["tasks"], heartbeat["seconds"]
    if not all(isinstance(task[key], int) for task in tasks for key in ("runs", "step", "total")):
        return
    running = sum(t["runs"] * t["step"] / t["total"] for t in tasks if t["total"])
    finished = heartbeat["done"] + running
    found.tasks = tasks
    if finished and passed > 0:
        found.rate = 60 * finished / passed
        open_ = found.states["waiting"] + found.states["running"] - running
        found.left = max(0.0, open_ / finished * passed)
