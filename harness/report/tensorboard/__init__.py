"""TensorBoard's views of runs and sweeps: event files, rebuildable from the store at any time."""

from __future__ import annotations

from harness.report.tensorboard.board import RunBoard
from harness.report.tensorboard.rebuild import rebuild, rebuild_all, write_layout, write_root

__all__ = ["RunBoard", "rebuild", "rebuild_all", "write_layout", "write_root"]
