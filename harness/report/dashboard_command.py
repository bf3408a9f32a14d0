"""`harness-tools dashboard`: every TensorBoard view of a folder of runs, made anew from the store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from harness.compare.frames import factors
from harness.report.tensorboard import rebuild, rebuild_all, write_root
from harness.store.runs import Run, Runs, open_runs


def rebuild_dashboard(runs: Runs, folder: Path, *, maps: bool = True) -> Iterator[tuple[Run, str]]:
    """Rebuild the event files of all runs, then those of the folders that they lie in.

    Args:
        runs: found in `folder`.
        folder: a run's own, a sweep's, or any above.
        maps: whether to draw heat maps.

    Yields:
        A run, and why it could not be rebuilt ("" if it could).
    """
    yield from rebuild_all(runs, maps=maps)
    rebuild_roots(runs, folder)


def rebuild_roots(runs: Runs, folder: Path | None = None) -> None:
    """Rebuild the event files of the folders in which runs lie: columns of the HParams tab, and charts."""
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
    """At the end of a sweep: the views of its root, and of the runs that failed before they had any."""
    runs = Runs([run for run in open_runs(output) if run.path.parent.resolve() == output.resolve()])
    with suppress(OSError):  # a full disk: the results are kept, and views can be made anew at any time
        for run in runs:
            if run.status.get("state") == "failed":
                rebuild(run)
        if len(runs):
            rebuild_roots(runs)
