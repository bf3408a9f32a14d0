"""StopOnDeadUnits for environments with both libraries: it serves whichever Trainer calls it."""

from __future__ import annotations

from typing import Any

from transformers import TrainingArguments

from harness.integrations import lightning, transformers


class StopOnDeadUnits(lightning.StopOnDeadUnits, transformers.StopOnDeadUnits):
    """For either Trainer. Their events have different names, except `on_train_end`."""

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Close the last window, detach, and print the verdict."""
        of_transformers = bool(args) and isinstance(args[0], TrainingArguments)
        (transformers if of_transformers else lightning).StopOnDeadUnits.on_train_end(self, *args, **kwargs)
