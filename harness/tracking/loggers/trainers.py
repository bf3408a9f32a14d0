"""Loggers of trainers: Lightning's, Accelerate's trackers, and an Accelerator with all of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.tracking.loggers.logger import Logger


class LightningLogger(Logger):
    """Scalars, by `log_metrics`.

    Args:
        logger: one of Lightning's.
    """

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self._logger.log_metrics(dict(values), step=step)


class AccelerateLogger(Logger):
    """Scalars, by `log`.

    Args:
        tracker: one of Accelerate's, or an Accelerator.
    """

    def __init__(self, tracker: Any) -> None:
        self._tracker = tracker

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self._tracker.log(dict(values), step=step)
