"""Adapters for external loggers, which receive the numbers of every census.

Your own logger is a function (name, value, step), or a class with the methods of `Logger`. The adapter for a
logger is chosen without importing any logging package.
"""

from __future__ import annotations

from typing import Any

from harness.tracking.loggers.logger import FunctionLogger, Logger, MetricsLogger, SummaryWriterLogger
from harness.tracking.loggers.mlflow import MlflowLogger
from harness.tracking.loggers.wandb import WandbLogger

__all__ = ["Logger", "as_loggers"]

KINDS = (
    "a SummaryWriter, a run of wandb, the module mlflow or (an MlflowClient, run id), a logger of Lightning "
    "or Accelerate, or a function (name, value, step)"
)


def as_loggers(given: Any) -> list[Logger]:
    """Return adapters for one logger or several.

    Args:
        given: None, a logger, or a list of them.

    Raises:
        TypeError: the kind of a logger is unknown.

    Example:
        >>> [type(one).__name__ for one in as_loggers([print, lambda name, value, step: None])]
        ['FunctionLogger', 'FunctionLogger']
    """
    if given is None:
        return []
    if isinstance(given, list | tuple) and not _is_client_and_run(given):
        return [logger for one in given for logger in as_loggers(one)]
    return [_adapter(given)]


def _adapter(given: Any) -> Logger:
    if isinstance(given, Logger):
        return given
    packages = {base.__module__.partition(".")[0] for base in type(given).__mro__}
    if getattr(given, "__name__", "") == "mlflow" and hasattr(given, "MlflowClient"):
        run = given.active_run() or given.start_run()
        return MlflowLogger(given.MlflowClient(), run.info.run_id)
    if _is_client_and_run(given):
        client, run_id = given
        return MlflowLogger(client, run_id)
    if hasattr(given, "add_scalar") and hasattr(given, "add_histogram"):
        return SummaryWriterLogger(given)
    if "wandb" in packages and hasattr(given, "define_metric"):
        return WandbLogger(given)
    if hasattr(given, "log_metrics"):
        return MetricsLogger(given.log_metrics)
    if "accelerate" in packages and hasattr(given, "log"):
        return MetricsLogger(given.log)
    if callable(given) and not isinstance(given, type):
        return FunctionLogger(given)
    raise TypeError(f"log_to: expected {KINDS}, but got {type(given).__name__}")


def _is_client_and_run(given: Any) -> bool:
    return (
        isinstance(given, tuple)
        and len(given) == 2
        and hasattr(given[0], "log_metric")
        and isinstance(given[1], str)
    )
