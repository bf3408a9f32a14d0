"""Logger: what an adapter does for one kind of logger; what a kind cannot show, it leaves out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


class Logger:
    """Takes what a census says; the methods of this class do nothing.

    Example:
        >>> class Printer(Logger):
        ...     def scalars(self, values, step):
        ...         print(step, dict(values))
        >>> Printer().scalars({"dead_units/dead": 3}, 100)
        100 {'dead_units/dead': 3}
    """

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Numbers by name; names begin with `dead_units/`."""

    def histogram(self, name: str, values: np.ndarray, step: int) -> None:
        """One number for each unit of a site."""

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        """A picture (height, width, 3), uint8."""

    def text(self, name: str, text: str, step: int) -> None:
        """A few sentences."""

    def alert(self, text: str, step: int) -> None:
        """A sentence that somebody should read now; by default a text."""
        self.text("dead_units/alert", text, step)
