"""Logger: base class of the adapters, which override the methods that their kind of logger supports."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


class Logger:
    """Receives the results of a census; the methods of this class do nothing.

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
