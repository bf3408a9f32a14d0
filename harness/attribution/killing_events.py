"""Which events may have killed the units that are dead, and whether the loss falls without a bound."""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.attribution.event import EPISODE, OUTSIDE, Event
from harness.attribution.events import calm_before
from harness.attribution.findings import LEAST_DEAD, Findings
from harness.attribution.lasting_causes import SOON
from harness.attribution.recurring_writes import come_just_after

FROM_OUTSIDE = 1.25  # weight of the deaths after an event from outside: others may follow from it
LONG_WITHOUT = 0.2  # share of the steps without a death before an event that ends a calm
NEARLY_ALL = 0.95  # share of the deaths that come after it
FALLEN = 10  # times its first size that a loss without a bound falls below 0


def killing_events(found: Findings, steps: pd.DataFrame) -> list[Event]:
    """Events preceded by calm and followed by half of the deaths; most deaths soon after first."""
    deaths = found.deaths.to_numpy(float)
    few = len(deaths) < LEAST_DEAD * found.total
    if found.before is not None:  # most of what died may not be finite any more
        few &= found.before[1] < LEAST_DEAD * found.before[2]
    standing = found.diverged_at if few or not len(deaths) else None
    if standing is not None:
        deaths = np.array([float(standing)])  # it represents the deaths that it prevented
    if not len(deaths):
        return []
    ranked: list[tuple[float, int, Event]] = []
    for event in found.events:
        after = deaths[deaths >= event.step - 1] if standing else found.deaths_from(event).to_numpy(float)
        # an inner event is a symptom of a cause present from the start
        if event.inner or len(after) < 0.5 * len(deaths):
            continue
        if not calm_before(steps, event.step) and not ends_a_calm(event, after, deaths, len(steps)):
            continue
        if event.again and not come_just_after(after, event):
            continue
        if standing or are_followed(event, after):
            weight = FROM_OUTSIDE if event.column in OUTSIDE else 1.0
            ranked.append((weight * int((after <= event.step + SOON).sum()), -event.step, event))
    likeliest = [event for _, _, event in sorted(ranked, reverse=True)]
    return _latest_first(likeliest, deaths) if likeliest else []


def _latest_first(events: list[Event], deaths: np.ndarray) -> list[Event]:
    """Put an event from outside first, if nearly nobody died between the likeliest one and it."""
    first = events[0]
    outside = [event for event in events if event.column in OUTSIDE]
    if first not in outside:
        return events
    for event in sorted(outside, key=lambda one: -one.step):
        if event.step <= first.step + 2 * EPISODE:
            break
        between = ((deaths >= first.step) & (deaths < event.step)).sum()
        if between <= (1 - NEARLY_ALL) * (deaths >= first.step).sum():
            return [event, *(one for one in events if one is not event)]
    return events


def ends_a_calm(event: Event, after: np.ndarray, deaths: np.ndarray, steps: int) -> bool:
    """Whether nearly all units died after an event from outside, and none in the many steps before.

    Long steps that killed none before it have not done it alone.
    """
    late = event.step >= max(2 * EPISODE, steps * LONG_WITHOUT)
    return event.column in OUTSIDE and not event.again and late and len(after) >= NEARLY_ALL * len(deaths)


def are_followed(event: Event, deaths: np.ndarray) -> bool:
    """Whether enough of the deaths after an event come soon, unless it lasts."""
    return event.lasts or (deaths <= event.step + SOON).sum() >= len(deaths) / 4


def is_falling(steps: pd.DataFrame, *, diverged: bool) -> bool:
    """Whether the loss falls far below 0 and does not slow down: it may have no lower bound."""
    loss = steps["loss"][np.isfinite(steps["loss"])].to_numpy(float) if len(steps) else np.empty(0)
    if len(loss) < 3 or (len(loss) < 2 * EPISODE and not diverged):
        return False
    few, half = max(1, min(EPISODE, len(loss) // 10)), len(loss) // 2
    start, middle, end = (float(np.median(part[:few])) for part in (loss, loss[half:], loss[-few:]))
    least = 1 if diverged else FALLEN
    return end < -least * max(1.0, abs(start)) and middle - end > (start - middle) / 2
