"""The manifest of a sweep: which runs it has and how they were divided, kept while and after it runs.

It lies in `output/.sweeps/`. A continued sweep takes the division from it: the runs that are done by then
do not change which runs train together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.config import RunSpec
from harness.store.files import write_json
from harness.store.reading import read_json
from harness.sweeps.cohorts import Task

FOLDER = ".sweeps"


def manifest_path(output: Path, runs: Sequence[str]) -> Path:
    """Of the sweep with these runs, whatever their order."""
    text = "\n".join(sorted(runs))
    return output / FOLDER / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"


def write_manifest(path: Path, runs: Sequence[str], tasks: Sequence[Task], names: Mapping[int, str]) -> None:
    """Keep the division; `names`: id of a spec → name of its run."""
    divided = [
        {"runs": [names[id(spec)] for spec in task.specs], "why_single": task.why_single} for task in tasks
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"runs": list(runs), "tasks": divided})


def read_tasks(path: Path, specs: Mapping[str, RunSpec]) -> list[Task] | None:
    """The division that was made before, None if there is none or it is of other runs."""
    kept: dict[str, Any] | None = read_json(path)
    try:
        if kept is None or set(kept.get("runs", ())) != set(specs):
            return None
        return [Task(tuple(specs[run] for run in task["runs"]), task["why_single"]) for task in kept["tasks"]]
    except (KeyError, TypeError):
        return None


def manifests(output: Path) -> list[dict[str, Any]]:
    """Every manifest in a folder of results, oldest first; damaged ones are left out."""
    found = sorted((output / FOLDER).glob("*.json"), key=lambda path: path.lstat().st_mtime)
    return [kept for kept in map(read_json, found) if kept is not None and _names(kept.get("runs", []))]


def _names(runs: Any) -> bool:
    return isinstance(runs, list) and all(isinstance(run, str) for run in runs)
