"""A function (name, value, step) as a logger."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from harness.tracking.loggers.logger import Logger


class FunctionLogger(Logger):
    """Calls it for every number.

    Args:
        log: takes name, value and step.
    """

    def __init__(self, log: Callable[[str, float, int], Any]) -> None:
        self._log = log

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._log(name, value, step)
