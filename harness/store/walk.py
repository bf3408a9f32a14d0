"""The one walk that finds runs: links are not followed, and folders that cannot be read are named."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

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
        told = f"{error.filename} left out: it cannot be read ({error.strerror or error})"
        warnings.warn(told, stacklevel=3)

    for folder, below, files in os.walk(root, onerror=tell):
        below[:] = sorted(name for name in below if not name.startswith("."))
        if needed({*files, *below}):
            yield Path(folder)
            below.clear()
