"""The one walk that finds runs: links are not followed, and folders that cannot be read are named."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

SHOWN = 300  # characters of a path in a warning
MARKS = frozenset({"config.yaml", "status.json"})  # what every run has


def folders_of(root: Path, needed: Callable[[Collection[str]], bool] = MARKS.issubset) -> Iterator[Path]:
    """The folders of runs in `root` or below it; links are not followed, and a run has no runs below.

    Args:
        root: where the search begins.
        needed: whether a folder with these names in it is a run's.

    Warns:
        UserWarning: a folder cannot be read.
    """

    def tell(error: OSError) -> None:
        message = f"{str(error.filename)[:SHOWN]} left out: it cannot be read ({error.strerror or error})"
        warnings.warn(message, stacklevel=3)

    left = [str(root)]
    while left:  # no recursion: folders can be deep
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
