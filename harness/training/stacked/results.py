"""The last checkpoint of each member, as its own run would have left it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from harness.store.files import side_by_side, whole
from harness.store.folder import RunFolder
from harness.training.checkpoint import NAME
from harness.training.stacked.parameters import Parameter


def leave_networks(
    folders: Sequence[RunFolder],
    parameters: Sequence[Parameter],
    buffers: dict[str, Tensor],
    places: Sequence[int] | None = None,
) -> None:
    """Write the trained networks of members.

    Only the entry `model` of an ordinary run's checkpoint is there: these runs have ended, and a cohort is
    continued as a whole.

    Args:
        folders: of the members, in the order of the stack.
        parameters: of the stack.
        buffers: of the stack.
        places: of the members in the stack; None: all of them.
    """

    def leave(place: int) -> None:
        model: dict[str, Any] = {
            p.name: p.value[place - p.members.start].clone() for p in parameters if place in p.members
        }
        model |= {name: buffer[place].clone() for name, buffer in buffers.items()}
        with whole(folders[place].path / NAME) as part:
            torch.save({"model": model}, part)

    side_by_side(leave, range(len(folders)) if places is None else places)
