"""Checkpoints: written atomically, with tensors and plain values only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from harness.attribution.recorder import Recorder
from harness.store.reading import named_line
from harness.store.schema import TABLES
from harness.training.remedy_runner import RemedyRunner
from harness.training.state_files import read, write

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
    """Write everything that determines how training continues.

    Args:
        folder: the run's folder.
        step: completed steps.
        model: the model; its parameters and buffers are saved.
        optimizer: the optimizer; its state is saved.
        recorder: the recorder; its running windows are saved.
        remedy: the remedy; its state is saved.
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
    write(folder / NAME, content)


def load(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """Return the checkpoint's content; None if there is none that can be read and continued."""
    content = read(folder / NAME, device)
    return content if set(content) >= KEYS else None


def continues(folder: Path, total: int) -> bool:
    """Whether a training of `total` steps can be continued: there is a checkpoint with its tables."""
    content = load(folder, torch.device("cpu"))
    if content is None:
        return False
    streams = all((folder / f"{name}.arrows").is_file() for name in TABLES)
    return streams or content["step"] == total  # killed while writing the final tables


def restore(
    content: dict[str, Any],
    model: nn.Module,
    optimizer: Optimizer,
    recorder: Recorder | None,
    remedy: RemedyRunner | None,
) -> None:
    """Restore a checkpoint's content.

    Raises:
        ValueError: it belongs to another model or optimizer.
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
