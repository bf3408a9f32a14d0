"""Adapters for external loggers, which receive the numbers of every census.

Your own logger is a function (name, value, step), or a class with the methods of `Logger`.
"""

from __future__ import annotations

from harness.tracking.loggers.choose import as_loggers
from harness.tracking.loggers.logger import Logger

__all__ = ["Logger", "as_loggers"]
