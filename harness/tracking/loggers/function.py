"""Loggers that only take numbers: a function, Lightning's, Accelerate's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from harness.tracking.loggers.logger import Logger


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
    """Calls a function once for all numbers of a census.

    Args:
        log: `log_metrics` of a Lightning logger, or `log` of an Accelerate tracker or an Accelerator.
    """

    def __init__(self, log: Callable[..., Any]) -> None:
        self._log = log

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self._log(dict(values), step=step)
