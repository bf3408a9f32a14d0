"""`harness-tools dashboard`: rebuilds every TensorBoard view of a folder of runs from the store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from harness.compare.frames import factors
from harness.report.tensorboard import rebuild, rebuild_all, write_root
from harness.store.runs import Run, Runs, open_runs


def rebuild_dashboard(runs: Runs, folder: Path, *, maps: bool = True) -> Iterator[tuple[Run, str]]:
    """Rebuild the event files of all runs, then those of their parent folders.

    Args:
        runs: the runs found in `folder`.
        folder: the folder of a run, of a sweep, or any above.
        maps: whether to draw heat maps.

    Yields:
        A run, and why it could not be rebuilt ("" if it could).
    """
    yield from rebuild_all(runs, maps=maps)
    rebuild_roots(runs, folder)


def rebuild_roots(runs: Runs, folder: Path | None = None) -> None:
    """Rebuild the event files of folders that contain runs: columns of the HParams tab, and charts."""
    below: dict[Path, list[Run]] = {}
    for run in runs:
        below.setdefault(run.path.parent, []).append(run)
    if folder is not None and all(run.path.resolve() != folder.resolve() for run in runs):
        below[folder] = list(runs)
    for root, part in below.items():
        if folder is None or root.resolve().is_relative_to(folder.resolve()):
            found = Runs(part)
            swept = [*factors(found.table), "seed"]
            write_root(root, found, swept)


def finish_sweep(output: Path) -> None:
    """Finish a sweep: build the views of its root, and of runs that failed before they had any."""
    runs = Runs([run for run in open_runs(output) if run.path.parent.resolve() == output.resolve()])
    with suppress(OSError):  # a full disk: results are safe, and views can be rebuilt at any time
        for run in runs:
            if run.status.get("state") == "failed":
                rebuild(run)
        if len(runs):
            rebuild_roots(runs)
