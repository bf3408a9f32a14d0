"""TensorBoard views of runs and sweeps: event files that can be rebuilt from the store at any time."""

from __future__ import annotations

from harness.report.tensorboard.board import RunBoard
from harness.report.tensorboard.hparams import short_config
from harness.report.tensorboard.rebuild import rebuild, rebuild_all, write_root

__all__ = ["RunBoard", "rebuild", "rebuild_all", "short_config", "write_root"]
