"""The checkpoint of a cohort: whole or not at all, tensors and plain values only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from harness.config import RunSpec
from harness.config.identity import run_id
from harness.store.files import whole
from harness.store.reading import is_there
from harness.store.schema import TABLES

NAME = "cohort.pt"


def save(keep: Path, content: dict[str, Any]) -> None:
    """Replace the checkpoint.

    Raises:
        OSError: it cannot be written.
    """
    keep.mkdir(parents=True, exist_ok=True)
    with whole(keep / NAME) as part:
        try:
            torch.save(content, part)
        except RuntimeError as error:  # torch's word for a full disk
            raise OSError(f"cannot write {keep / NAME} ({str(error).splitlines()[0]})") from error


def done(keep: Path, specs: Sequence[RunSpec], paths: Sequence[Path]) -> bool:
    """Whether the checkpoint says that all of these members have been trained to their ends."""
    content = load(keep, specs, paths)
    return content is not None and bool(content["done"])


def load(keep: Path, specs: Sequence[RunSpec], paths: Sequence[Path]) -> dict[str, Any] | None:
    """The checkpoint, or None if none can be read that is of these members and has their tables.

    Args:
        keep: folder of the checkpoint.
        specs: of the members.
        paths: their folders.
    """
    try:
        if not is_there(keep / NAME):
            return None
        content = torch.load(keep / NAME, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, UnpicklingError):
        return None
    if not isinstance(content, dict) or content.get("members") != [run_id(spec) for spec in specs]:
        return None
    there = zip(paths, content["positions"], strict=True)
    return content if all(_has_tables(path, p, done=content["done"]) for path, p in there) else None


def _has_tables(path: Path, positions: dict[str, int], *, done: bool) -> bool:
    for name in TABLES:
        stream = path / f"{name}.arrows"
        if stream.is_file() and stream.stat().st_size >= positions[name]:
            continue
        if not (done and (path / f"{name}.parquet").is_file()):  # killed while tables were being finished
            return False
    return True
