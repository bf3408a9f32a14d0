"""Refuses what cannot be one stack."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from harness.config import RunSpec
from harness.config.schema import Device
from harness.store.folder import RunFolder
from harness.training.alike import alike, refusal


def check(specs: Sequence[RunSpec], folders: Sequence[RunFolder]) -> None:
    """Raise ValueError where runs cannot be trained as one stack."""
    if not specs:
        raise ValueError("expected at least one run")
    if len({folder.path for folder in folders}) != len(specs):
        raise ValueError("expected each run once, with a folder of its own")
    if specs[0].device is Device.auto and torch.cuda.is_available():
        raise ValueError("device=auto finds a GPU here: stacks are trained on the CPU")
    for spec in specs:
        if refusal(spec):
            raise ValueError(refusal(spec))
        if alike(spec) != alike(specs[0]):
            raise ValueError("expected runs that share network, data, length, optimizer and recording")
