"""Changes from census to census: how many units of each site died or revived."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from harness.detector.grid import one_evidence, telling

UNIT = ["site", "unit"]


class Transition(NamedTuple):
    """`units` units of `site` "died" or "revived"."""

    kind: str
    site: str
    units: int


class Transitions:
    """Follows the censuses of one run, and counts what `lifetimes` counts in the whole history.

    A census in which a unit was not observed or not finite is ignored for that unit: the next informative one
    is compared with the last informative one.

    Example:
        >>> a = pd.DataFrame({"evidence": "probe", "site": "x", "unit": [0, 1], "state": ["active", "dead"]})
        >>> follow = Transitions()
        >>> follow.add(a), follow.add(a.assign(state="unobserved")), follow.add(a.assign(state="dead"))
        ([], [], [Transition(kind='died', site='x', units=1)])
    """

    def __init__(self) -> None:
        self._dead: dict[str, pd.Series] = {}  # by evidence: whether a unit was dead when last known

    def resume(self, history: pd.DataFrame) -> None:
        """Continue after these censuses, whose transitions are already known."""
        seen = telling(history)
        for evidence, rows in seen.groupby("evidence"):
            last = rows.drop_duplicates(UNIT, keep="last")
            self._dead[str(evidence)] = _dead(last)

    def add(self, census: pd.DataFrame) -> list[Transition]:
        """Add the next census; returns its transitions by site, on the probe if it has one."""
        found: list[Transition] = []
        rows = one_evidence(census)
        if rows.empty:
            return found
        seen = telling(rows)
        now = _dead(seen)
        evidence = str(rows["evidence"].iloc[0])
        then = self._dead.get(evidence, now.iloc[:0])
        before, after, kept = then, now, then.iloc[:0]
        if not then.index.equals(now.index):
            both = then.index.intersection(now.index, sort=False)
            before, after, kept = then[both], now[both], then[~then.index.isin(now.index)]
        for kind, changed in (("died", after & ~before), ("revived", before & ~after)):
            counts = changed[changed].groupby(level="site", sort=False).size()
            found += [Transition(kind, str(site), int(units)) for site, units in counts.items()]
        self._dead[evidence] = pd.concat([now, kept]) if len(kept) else now
        return found


def _dead(rows: pd.DataFrame) -> pd.Series:
    return (rows["state"] == "dead").set_axis(pd.MultiIndex.from_frame(rows[UNIT]))
