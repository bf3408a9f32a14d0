"""Find run folders, without following links and with warnings for unreadable folders."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

SHOWN = 300  # most characters of a path in a warning
MARKS = frozenset({"config.yaml", "status.json"})  # files of every run
CENSUS = "census.parquet"


def is_run(names: Collection[str]) -> bool:
    """Whether a folder with these entries is that of a run that began, though a file may be gone."""
    return MARKS.issubset(names) or (CENSUS in names and not MARKS.isdisjoint(names))


def folders_of(root: Path, needed: Callable[[Collection[str]], bool] = is_run) -> Iterator[Path]:
    """Iterate over the run folders in `root` or below it, without following links or descending into runs.

    Args:
        root: where the search starts.
        needed: whether a folder with these entries is a run folder.

    Warns:
        UserWarning: a folder cannot be read.
    """

    def tell(error: OSError) -> None:
        message = f"{str(error.filename)[:SHOWN]} left out: it cannot be read ({error.strerror or error})"
        warnings.warn(message, stacklevel=3)

    left = [str(root)]
    while left:  # no recursion, since folders can be nested deeply
        folder = left.pop()
        try:
            with os.scandir(folder) as found:
                entries = {entry.name: entry for entry in found}
        except OSError as error:
            tell(error)
            continue
        if needed(entries.keys()):
            yield Path(folder)
            continue
        names = sorted((name for name in entries if not name.startswith(".")), reverse=True)
        left += [entries[name].path for name in names if entries[name].is_dir(follow_symlinks=False)]
