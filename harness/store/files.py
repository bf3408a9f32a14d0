"""Write files atomically."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

WRITERS = 4  # threads for writing
T = TypeVar("T")
R = TypeVar("R")
Opener = Callable[[Path], AbstractContextManager[Path]]


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` if the block ends without an exception."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def typed(path: Path) -> Iterator[Path]:
    """Like `whole`, for a path from the user: follow links, and never replace a device or pipe.

    Raises:
        OSError: the path exists but is not a regular file.
    """
    target = path.resolve()
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, f"{path} is no file: it is not replaced")
    with whole(target) as part:
        try:
            yield part
        except OSError as error:  # names the path that was given
            if error.filename is not None and Path(error.filename) == part:
                error.filename = str(path)
            raise


def cores() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def side_by_side(write: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Run writes on a few threads, since they mostly wait for the disk; results are in order."""
    with ThreadPoolExecutor(WRITERS) as pool:
        return list(pool.map(write, items))


def write_text(path: Path, text: str, into: Opener = whole) -> None:
    """Write text atomically; characters that cannot be encoded (in file names) are escaped."""
    with into(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any, into: Opener = whole) -> None:
    """Write plain values as JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n", into)
