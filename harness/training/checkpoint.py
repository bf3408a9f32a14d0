"""Checkpoints: whole or not at all, tensors and plain values only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from harness.attribution.recorder import Recorder
from harness.store.files import whole
from harness.store.reading import named_line
from harness.store.schema import TABLES
from harness.training.remedy_runner import RemedyRunner
from harness.training.state_files import read

NAME = "checkpoint.pt"
KEYS = {"step", "model", "optimizer", "recorder", "positions", "random", "random_cuda"}


def save(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: Optimizer,
    recorder: Recorder | None,
    remedy: RemedyRunner | None,
    positions: dict[str, int],
) -> None:
    """Write everything that decides how training goes on.

    Args:
        folder: of the run.
        step: completed steps.
        model: its parameters and buffers are written.
        optimizer: its state.
        recorder: its running windows.
        remedy: what its remedy remembers.
        positions: table → bytes of its stream that belong to this checkpoint.
    """
    content = {
        "step": step,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "recorder": None if recorder is None else recorder.state_dict(),
        "remedy": None if remedy is None else remedy.state(),
        "positions": positions,
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    with whole(folder / NAME) as part:
        torch.save(content, part)


def load(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """The checkpoint's content, or None if there is none that can be read and continued."""
    content = read(folder / NAME, device)
    return content if set(content) >= KEYS else None


def continues(folder: Path, total: int) -> bool:
    """Whether a training of `total` steps can be continued: checkpoint and tables belong together."""
    content = load(folder, torch.device("cpu"))
    if content is None:
        return False
    streams = all((folder / f"{name}.arrows").is_file() for name in TABLES)
    return streams or content["step"] == total  # killed while the tables were being finished


def restore(
    content: dict[str, Any],
    model: nn.Module,
    optimizer: Optimizer,
    recorder: Recorder | None,
    remedy: RemedyRunner | None,
) -> None:
    """Put a checkpoint's content back.

    Raises:
        ValueError: it is of another model or optimizer.
    """
    try:
        model.load_state_dict(content["model"])
        optimizer.load_state_dict(content["optimizer"])
        if recorder is not None and content["recorder"] is not None:
            recorder.load_state_dict(content["recorder"])
        if remedy is not None:
            remedy.load(content["remedy"])
        torch.set_rng_state(content["random"].cpu())
    except Exception as error:
        problem = f"{NAME} does not hold the state of this run ({named_line(error)})"
        raise ValueError(f"{problem}. force=true trains it from the start") from error
    if content["random_cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([state.cpu() for state in content["random_cuda"]])
