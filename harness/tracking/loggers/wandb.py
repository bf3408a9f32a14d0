"""Weights & Biases: a run of `wandb.init()`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.tracking.loggers.logger import Logger

STEP = "dead_units/step"  # separate from wandb's own step, which belongs to the user


class WandbLogger(Logger):
    """Logs scalars, histograms, images, texts and alerts against a separate step metric.

    Args:
        run: result of `wandb.init()`; it is not finished.
    """

    def __init__(self, run: Any) -> None:
        self._run = run
        run.define_metric(STEP, hidden=True)
        run.define_metric("dead_units/*", step_metric=STEP)

    def _log(self, values: Mapping[str, Any], step: int) -> None:
        self._run.log({**values, STEP: step}, commit=True)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self._log(values, step)

    def histogram(self, name: str, values: np.ndarray, step: int) -> None:
        import wandb

        self._log({name: wandb.Histogram(values.tolist())}, step)

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        import wandb

        self._log({name: wandb.Image(pixels)}, step)

    def text(self, name: str, text: str, step: int) -> None:
        self._run.summary[name] = text

    def alert(self, text: str, step: int) -> None:
        self._run.alert(title="Dead units", text=text)
        super().alert(text, step)
