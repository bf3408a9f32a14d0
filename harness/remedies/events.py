"""RemedyEvent: what a remedy did, as stored in a run's table of events."""

from __future__ import annotations

from typing import NamedTuple


class RemedyEvent(NamedTuple):
    """One act of a remedy.

    Attributes:
        kind: name of the remedy.
        site: name of the site; "" for the whole network.
        units: number of units that it changed; 0 for the whole network.
        detail: the rule, or what was done.

    Example:
        >>> RemedyEvent("redo", "layers.0.act", 3, "score at most 0").describe()
        'redo: 3 units of layers.0.act (score at most 0)'
    """

    kind: str
    site: str
    units: int
    detail: str = ""

    def describe(self) -> str:
        """The event in one line."""
        where = f"{self.units} units of {self.site}" if self.site else "the whole network"
        return f"{self.kind}: {where}" + (f" ({self.detail})" if self.detail else "")
