"""The checkpoint of a cohort, and the final network of each member."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from harness.config import RunSpec
from harness.config.identity import run_id
from harness.store.files import side_by_side
from harness.store.folder import RunFolder
from harness.store.schema import TABLES
from harness.training.checkpoint import NAME as OF_A_RUN
from harness.training.stacked.parameters import Parameter
from harness.training.state_files import read, write

NAME = "cohort.pt"


def save(keep: Path, content: dict[str, Any]) -> None:
    """Replace the checkpoint.

    Raises:
        OSError: it cannot be written.
    """
    keep.mkdir(parents=True, exist_ok=True)
    write(keep / NAME, content)


def done(keep: Path, specs: Sequence[RunSpec], paths: Sequence[Path]) -> bool:
    """Whether the checkpoint says that these members have all been trained to the end."""
    content = load(keep, specs, paths)
    return content is not None and bool(content["done"])


def load(keep: Path, specs: Sequence[RunSpec], paths: Sequence[Path]) -> dict[str, Any] | None:
    """Read the checkpoint; None if it is missing, belongs to other members or lacks their tables.

    Args:
        keep: folder of the checkpoint.
        specs: the members.
        paths: their folders.
    """
    content = read(keep / NAME)
    if content.get("members") != [run_id(spec) for spec in specs]:
        return None
    there = zip(paths, content["positions"], strict=True)
    return content if all(_has_tables(path, p, done=content["done"]) for path, p in there) else None


def _has_tables(path: Path, positions: dict[str, int], *, done: bool) -> bool:
    for name in TABLES:
        stream = path / f"{name}.arrows"
        if stream.is_file() and stream.stat().st_size >= positions[name]:
            continue
        if not (done and (path / f"{name}.parquet").is_file()):  # killed while writing the final tables
            return False
    return True


def leave_networks(
    folders: Sequence[RunFolder],
    parameters: Sequence[Parameter],
    buffers: dict[str, Tensor],
    places: Sequence[int] | None = None,
) -> None:
    """Write the trained networks of members.

    The files contain only the entry `model` of an ordinary checkpoint, since these runs have ended, and a
    cohort is always continued as a whole.

    Args:
        folders: folders of the members, in the order of the stack.
        parameters: parameters of the stack.
        buffers: buffers of the stack.
        places: places of the members in the stack; None: all of them.
    """

    def leave(place: int) -> None:
        model: dict[str, Any] = {
            p.name: p.value[place - p.members.start].clone() for p in parameters if place in p.members
        }
        model |= {name: buffer[place].clone() for name, buffer in buffers.items()}
        write(folders[place].path / OF_A_RUN, {"model": model})

    side_by_side(leave, range(len(folders)) if places is None else places)
