"""The censuses of a recorder: kept as columns, made tables only when somebody looks."""

from __future__ import annotations

from typing import Any

import pandas as pd

from harness.detector.states import Thresholds
from harness.hooks.sites import Site
from harness.hooks.windows import Windows, frame


class Censuses:
    """Censuses, oldest first.

    Args:
        thresholds: of the states in their tables.

    Attributes:
        last: the parts of the last census, one for each evidence; None before the first.
    """

    def __init__(self, thresholds: Thresholds) -> None:
        self._thresholds = thresholds
        self._kept: list[dict[str, Any]] = []
        self.last: list[dict[str, Any]] | None = None
        self._telling: list[dict[str, Any]] = []  # of the last one that had seen an input

    def add(self, parts: list[dict[str, Any]]) -> None:
        """Keep a census."""
        self._kept += parts
        self.last = parts
        if any((part["n"] > 0).any() for part in parts):
            self._telling = parts

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def latest(self) -> pd.DataFrame | None:
        """The last census; None before the first."""
        return None if self.last is None else self._frame(self.last)

    def history(self) -> pd.DataFrame:
        """All that are kept; without any, a table without rows."""
        if not self._kept:
            return frame({c: v[:0] for c, v in _nothing().items()}, self._thresholds)
        return self._frame(self._kept)

    def drain(self) -> pd.DataFrame:
        """All that are kept; they are kept no longer."""
        drained, self._kept = self.history(), []
        return drained

    def sites_in_question(self) -> set[str]:
        """The sites where the last census with inputs found dead units; all, if it found any not finite."""
        if not self._telling:
            return set()
        last = self._frame(self._telling)
        broken = last["state"].eq("non_finite").any()
        return set(last["site"] if broken else last.loc[last["state"].eq("dead"), "site"])

    def _frame(self, parts: list[dict[str, Any]]) -> pd.DataFrame:
        return pd.concat([frame(columns, self._thresholds) for columns in parts], ignore_index=True)


def _nothing() -> dict[str, Any]:
    return Windows("stream").close(0, [Site("", "", -1, None, None)], None)
