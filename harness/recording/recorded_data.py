"""What a recorder has recorded so far."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
from torch import nn

from harness.graph.plan import Plan, Site
from harness.hooks.eager import EagerTaps
from harness.recording.batches import Batch, as_batches
from harness.recording.census_log import CensusLog
from harness.recording.model_calls import arguments_of
from harness.recording.probe import Probe
from harness.recording.windows import WindowAccumulator


class RecordedData:
    """The recorded data of an `ActivationRecorder`."""

    _model: nn.Module
    _steps: int
    _closed: int
    _taps: EagerTaps
    _windows: WindowAccumulator
    _probe: Probe
    _log: CensusLog

    @property
    def steps(self) -> int:
        """Completed `step()` calls."""
        return self._steps

    @property
    def probe(self) -> list[Batch] | None:
        """The held-out batches; assign new ones when the task changes."""
        return self._probe.batches

    @probe.setter
    def probe(self, batches: Batch | Iterable[Batch] | None) -> None:
        required = len(arguments_of(self._model).required)
        self._probe.batches = None if batches is None else list(as_batches(batches, required))

    @property
    def census_step(self) -> int:
        """Number of completed steps at the last census that closed a window; -1 before the first."""
        return self._closed

    @property
    def latest(self) -> pd.DataFrame | None:
        """The last census, as `census()` returned it; None before the first."""
        return self._log.latest

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites so far, in order of their first call, followed by those that cannot be observed."""
        empty = self._taps.without_counts
        seen = [empty.get(site.name, site) for site in self._windows.sites]
        return (*(seen or self._probe.windows.sites), *self._unseen())

    @property
    def plan(self) -> Plan:
        """What is observed of the model, according to its forward passes so far; `print` it."""
        return self._taps.plan(self._unseen())

    def history(self) -> pd.DataFrame:
        """All censuses so far, oldest first."""
        return self._log.history()

    def drain(self) -> pd.DataFrame:
        """Return the censuses since the last call, and remove them from the history."""
        return self._log.drain()

    def _unseen(self) -> list[Site]:
        return self._taps.unobserved({*self._probe.taps.called, *self._taps.called})
