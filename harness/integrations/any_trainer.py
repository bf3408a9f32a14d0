"""The face of StopOnDeadUnits where both libraries are there: whichever Trainer calls it is answered."""

from __future__ import annotations

from typing import Any

from transformers import TrainingArguments

from harness.integrations import lightning, transformers


class StopOnDeadUnits(lightning.StopOnDeadUnits, transformers.StopOnDeadUnits):
    """For either Trainer. Their events bear different names, but for `on_train_end`."""

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Close the last window, detach, and say the verdict."""
        of_transformers = bool(args) and isinstance(args[0], TrainingArguments)
        (transformers if of_transformers else lightning).StopOnDeadUnits.on_train_end(self, *args, **kwargs)
