"""RemedyEvent: what a remedy did, as it stands in a run's table of events."""

from __future__ import annotations

from typing import NamedTuple


class RemedyEvent(NamedTuple):
    """One act of a remedy.

    Attributes:
        kind: name of the remedy.
        site: where; "" for the whole network.
        units: how many units it changed; 0 for the whole network.
        detail: by which rule.

    Example:
        >>> RemedyEvent("redo", "layers.0.act", 3, "score at most 0").describe()
        'redo: 3 units of layers.0.act (score at most 0)'
    """

    kind: str
    site: str
    units: int
    detail: str = ""

    def describe(self) -> str:
        """The event in a line."""
        where = f"{self.units} units of {self.site}" if self.site else "the whole network"
        return f"{self.kind}: {where}" + (f" ({self.detail})" if self.detail else "")
