"""The last checkpoint of each member, as its own run would have left it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from harness.config import RunSpec
from harness.store.files import whole
from harness.store.folder import RunFolder
from harness.training.checkpoint import NAME
from harness.training.stacked.ledger import Ledger
from harness.training.stacked.parameters import Parameter


def leave_checkpoints(
    specs: Sequence[RunSpec],
    folders: Sequence[RunFolder],
    members: Sequence[int],
    parameters: Sequence[Parameter],
    buffers: dict[str, Tensor],
    ledger: Ledger,
) -> None:
    """Write the trained network of every member that has not diverged."""
    for place, member in enumerate(members):
        model: dict[str, Any] = {
            p.name: p.value[place - p.members.start].clone() for p in parameters if place in p.members
        }
        model |= {name: buffer[place].clone() for name, buffer in buffers.items()}
        content = {"model": model}
        with whole(folders[member].path / NAME) as part:
            torch.save(content, part)
