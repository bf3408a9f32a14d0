"""The manifest of a sweep: its runs and their division into tasks, stored in `output/.sweeps/`.

A continued sweep reads its division from the manifest, so finished runs do not change which runs train
together.
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
    """Path of the manifest of the sweep with these runs, in any order."""
    text = "\n".join(sorted(runs))
    return output / FOLDER / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"


def write_manifest(path: Path, runs: Sequence[str], tasks: Sequence[Task], names: Mapping[int, str]) -> None:
    """Store the division; `names` maps the id of a spec to the name of its run."""
    divided = [
        {"runs": [names[id(spec)] for spec in task.specs], "why_single": task.why_single} for task in tasks
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"runs": list(runs), "tasks": divided})


def read_tasks(path: Path, specs: Mapping[str, RunSpec]) -> list[Task] | None:
    """Read the stored division; None if there is none or it belongs to other runs."""
    manifest: dict[str, Any] | None = read_json(path)
    try:
        if manifest is None or set(manifest.get("runs", ())) != set(specs):
            return None
        return [
            Task(tuple(specs[run] for run in task["runs"]), task["why_single"]) for task in manifest["tasks"]
        ]
    except (KeyError, TypeError):
        return None


def manifests(output: Path) -> list[dict[str, Any]]:
    """Read every manifest in a folder of results, oldest first, without damaged ones."""
    found = sorted((output / FOLDER).glob("*.json"), key=lambda path: path.lstat().st_mtime)
    return [
        manifest
        for manifest in map(read_json, found)
        if manifest is not None and _names(manifest.get("runs", []))
    ]


def _names(runs: Any) -> bool:
    return isinstance(runs, list) and all(isinstance(run, str) for run in runs)
