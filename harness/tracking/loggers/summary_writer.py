"""`SummaryWriter` of `torch.utils.tensorboard` or tensorboardX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.tracking.loggers.logger import Logger


class SummaryWriterLogger(Logger):
    """Logs scalars, histograms, images and texts.

    Args:
        writer: a SummaryWriter; it is not closed.
    """

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def histogram(self, name: str, values: np.ndarray, step: int) -> None:
        self._writer.add_histogram(name, values, step)

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def text(self, name: str, text: str, step: int) -> None:
        self._writer.add_text(name, text, step)
