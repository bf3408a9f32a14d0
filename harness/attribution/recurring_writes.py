"""Recurring writes: parameters that are overwritten again and again, as federated averaging does, say.

What a training does all the time is no event. It is to blame if units die just after it, or if nothing else
is known.
"""

from __future__ import annotations

import numpy as np

from harness.attribution.event import Event

FEWEST = 4  # writes from which they recur
LARGER = 3.0  # times the writes next to it from which one is of another kind
JUST_AFTER = 0.2  # share of the steps between two writes in which deaths come just after one


def recurring_writes(shares: np.ndarray) -> np.ndarray:
    """The rows of the writes that recur; empty if there are few.

    Args:
        shares: the share of the parameters' norm that was overwritten in each step, 0 if it was not.
    """
    rows = np.flatnonzero(shares > 0)
    if len(rows) < FEWEST:
        return rows[:0]
    sizes = shares[rows]
    beside = np.maximum(np.roll(sizes, 1), np.roll(sizes, -1))
    beside[[0, -1]] = sizes[[1, -2]]
    alike = rows[sizes <= LARGER * beside]
    return alike if len(alike) >= FEWEST else rows[:0]


def as_event(steps: np.ndarray, shares: np.ndarray, rows: np.ndarray) -> list[Event]:
    """Recurring writes as one event; none if there are none.

    Args:
        steps: the number of each step.
        shares: as in `recurring_writes`.
        rows: what it returned.
    """
    if not len(rows):
        return []
    first, *later = (int(step) for step in steps[rows])
    text = (
        f"between step {first - 1:,} and step {first:,}: parameters were overwritten by "
        f"{100 * shares[rows[0]]:.3g} % of their norm, not by the optimizer, and again {len(later):,} times "
        f"until step {later[-1]:,}"
    )
    return [Event(first, "surgery", "written_norm", float(shares[rows[0]]), text, again=tuple(later))]


def come_just_after(deaths: np.ndarray, event: Event) -> bool:
    """Whether most of some deaths come just after one of the recurring writes."""
    writes = np.array([event.step, *event.again], float)
    near = deaths >= writes[0] - 1
    lag = deaths - writes[np.maximum(np.searchsorted(writes, deaths + 1, "right") - 1, 0)]
    soon = max(1.0, JUST_AFTER * float(np.median(np.diff(writes))))
    return bool((near & (lag <= soon)).mean() > 0.5)
