"""The base class of the adapters, and those that need no package of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


class Logger:
    """Receives the results of a census; an adapter overrides the methods that its kind of logger supports.

    Example:
        >>> class Printer(Logger):
        ...     def scalars(self, values, step):
        ...         print(step, dict(values))
        >>> Printer().scalars({"dead_units/dead": 3}, 100)
        100 {'dead_units/dead': 3}
    """

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers by name; names begin with `dead_units/`."""

    def histogram(self, name: str, values: np.ndarray, step: int) -> None:
        """Log one number for each unit of a site."""

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        """Log an image (height, width, 3), uint8."""

    def text(self, name: str, text: str, step: int) -> None:
        """Log a few sentences."""

    def alert(self, text: str, step: int) -> None:
        """Log an urgent sentence; by default as text."""
        self.text("dead_units/alert", text, step)


class FunctionLogger(Logger):
    """Calls a function for every number.

    Args:
        log: called with name, value and step.
    """

    def __init__(self, log: Callable[[str, float, int], Any]) -> None:
        self._log = log

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._log(name, value, step)


class MetricsLogger(Logger):
    """Calls a function once for all numbers of a census, as loggers of Lightning and Accelerate want it.

    Args:
        log: `log_metrics` of a Lightning logger, or `log` of an Accelerate tracker or an Accelerator.
    """

    def __init__(self, log: Callable[..., Any]) -> None:
        self._log = log

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self._log(dict(values), step=step)


class SummaryWriterLogger(Logger):
    """Logs to a `SummaryWriter` of `torch.utils.tensorboard` or tensorboardX.

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
