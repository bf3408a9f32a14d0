"""What changed between two censuses: how many units of each site died or came back."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from harness.detector.lifetimes import one_evidence


class Transition(NamedTuple):
    """`units` units of `site` "died" or "revived"."""

    kind: str
    site: str
    units: int


def transitions(before: pd.DataFrame, after: pd.DataFrame) -> list[Transition]:
    """Transitions between two censuses (of the probe, where both have one), by site.

    Example:
        >>> a = pd.DataFrame({"evidence": "probe", "site": "x", "unit": [0, 1], "state": ["active", "dead"]})
        >>> transitions(a, a.assign(state=["dead", "dead"]))
        [Transition(kind='died', site='x', units=1)]
    """
    then, now = (_dead(one_evidence(census)) for census in (before, after))
    both = then.index.intersection(now.index, sort=False)
    then, now = then[both], now[both]
    found = []
    for kind, changed in (("died", now & ~then), ("revived", then & ~now)):
        counts = changed.groupby(level="site", sort=False).sum()
        found += [Transition(kind, str(site), int(units)) for site, units in counts.items() if units]
    return found


def _dead(census: pd.DataFrame) -> pd.Series:
    seen = census[census["state"] != "unobserved"]
    return (seen["state"] == "dead").set_axis(pd.MultiIndex.from_frame(seen[["site", "unit"]]))
