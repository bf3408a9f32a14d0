"""The probe: held-out batches that are passed through at every census."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from harness.hooks.eager import EagerTaps
from harness.hooks.masks import attention_mask
from harness.kernels.unit_statistic import UnitStatistic
from harness.recording.batches import Batch, evaluation
from harness.recording.model_calls import outputs
from harness.recording.windows import WindowAccumulator


class Probe:
    """Held-out batches, with their own taps and windows.

    Args:
        model: the root module.
        statistics: user-defined statistics.
        options: further keyword arguments of the taps.

    Attributes:
        batches: None without a probe.
    """

    def __init__(self, model: nn.Module, statistics: Sequence[UnitStatistic] = (), **options: Any) -> None:
        self.batches: list[Batch] | None = None
        self.windows = WindowAccumulator("probe", statistics=statistics)
        self.taps = EagerTaps(model, self.windows, observe="eval", gradients=False, **options)
        self._model = model

    def census(self, steps: int, others: EagerTaps) -> dict[str, Any]:
        """Pass over the batches, respecting the `attention_mask` of dicts, and return the census.

        Args:
            steps: completed steps.
            others: taps to pause during the pass.
        """
        with self.taps.attached(), others.paused(), evaluation(self._model):
            seen = [batch for batch, _ in outputs(self._model, self.batches or [], before=self._mask)]
        self.batches = seen  # it is now decided whether a list is one batch
        return self.windows.close(steps, self.taps.unobserved(self.taps.called), None)

    def _mask(self, batch: Batch) -> None:
        self.taps.counter.masking.tell(attention_mask(batch))
