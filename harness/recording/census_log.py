"""The censuses of a recorder, stored as columns and converted to tables only when read."""

from __future__ import annotations

from typing import Any

import pandas as pd

from harness.detector.states import Thresholds
from harness.recording.windows import WindowAccumulator, frame


class CensusLog:
    """Censuses, oldest first.

    Args:
        thresholds: thresholds of the states in the tables.

    Attributes:
        last: the parts of the last census, one for each evidence; None before the first.
    """

    def __init__(self, thresholds: Thresholds) -> None:
        self._thresholds = thresholds
        self._censuses: list[dict[str, Any]] = []
        self.last: list[dict[str, Any]] | None = None
        self._last_observed: list[dict[str, Any]] = []
        self._latest: pd.DataFrame | None = None  # built when first read

    def add(self, parts: list[dict[str, Any]]) -> None:
        """Append a census."""
        self._censuses += parts
        self.last, self._latest = parts, None
        if any((part["n"] > 0).any() for part in parts):
            self._last_observed = parts

    def __len__(self) -> int:
        return len(self._censuses)

    @property
    def latest(self) -> pd.DataFrame | None:
        """The last census; None before the first."""
        if self.last is None:
            return None
        if self._latest is None:
            self._latest = self._frame(self.last)
        return self._latest.copy()

    @property
    def latest_observed(self) -> pd.DataFrame | None:
        """The last census that observed an input, even after `drain`; None if there is none."""
        return self._frame(self._last_observed) if self._last_observed else None

    def history(self) -> pd.DataFrame:
        """All censuses; an empty table if there are none."""
        if not self._censuses:
            return frame(
                {c: v[:0] for c, v in WindowAccumulator("stream").close(0, [], None).items()},
                self._thresholds,
            )
        if self._latest is not None and self.last is not None and len(self._censuses) == len(self.last):
            return self._latest.copy()  # the last census is the only one
        return self._frame(self._censuses)

    def drain(self) -> pd.DataFrame:
        """Return all censuses and remove them from the log."""
        drained, self._censuses = self.history(), []
        return drained

    def _frame(self, parts: list[dict[str, Any]]) -> pd.DataFrame:
        return pd.concat([frame(columns, self._thresholds) for columns in parts], ignore_index=True)
