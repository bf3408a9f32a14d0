"""`harness-tools threshold`: parse the arguments, search, and write the result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.sweeps.threshold_search.found import SearchResult, write
from harness.sweeps.threshold_search.stored import estimate
from harness.sweeps.threshold_search.train import SearchRequest, search

SCALES = {"auto": None, "log": True, "linear": False}


def run(
    words: Sequence[str],
    axis: str,
    between: tuple[float, float] | None,
    share: float,
    seeds: int,
    resolution: float | None,
    scale: str,
    checks: int,
    output: Path | None,
) -> SearchResult:
    """Search with new runs if `between` is given, otherwise in stored runs, and write the result.

    Raises:
        ConfigError, ValueError, OSError: the request cannot be carried out.
        KeyboardInterrupt: after the runs have saved their state.
    """
    from harness.store.runs import open_runs
    from harness.sweeps.threshold_search.show import progress

    if scale not in SCALES:
        raise ValueError(f"scale: expected one of {', '.join(SCALES)}, but got {scale}")
    folders = [word for word in words if "=" not in word]
    if between is None:
        if len(words) != 1 or not folders:
            raise ValueError(
                "expected --between LOW HIGH, to train runs, or one folder of runs and nothing else"
            )
        folder = Path(folders[0]).expanduser()
        runs = open_runs(folder)
        if not len(runs):
            raise ValueError(f"there is no run in {folder} (a run has config.yaml and status.json)")
        found = estimate(runs, axis, share, log=SCALES[scale])
        write(found, output.expanduser() if output else folder)
        return found
    if folders:
        raise ValueError(f"{folders[0]}: with --between, expected overrides (key=value) only")
    target = (output or Path("runs/edge")).expanduser()
    ask = SearchRequest(axis, *between, words, target, share, seeds, resolution, SCALES[scale], checks)
    with progress() as tell:
        found = search(ask, tell)
    write(found, target)
    return found
