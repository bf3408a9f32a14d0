"""Act: what a remedy did, as it stands in a run's table of events."""

from __future__ import annotations

from typing import NamedTuple


class Act(NamedTuple):
    """One act of a remedy.

    Attributes:
        kind: name of the remedy.
        site: where; "" for the whole network.
        units: how many units it changed; 0 for the whole network.
        detail: by which rule.

    Example:
        >>> Act("redo", "layers.0.act", 3, "score at most 0").units
        3
    """

    kind: str
    site: str
    units: int
    detail: str = ""
