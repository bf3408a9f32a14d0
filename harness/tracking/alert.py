"""Alert: warn once when the dead share crosses a threshold."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pandas as pd

from harness.detector.lifetimes import lifetimes
from harness.detector.states import Thresholds, dead_fraction
from harness.detector.verdict import Verdict, last_census, verdict

LOG = logging.getLogger("harness")
Condition = float | Callable[[Verdict], bool]


class Alert:
    """Checks every census against a condition.

    Args:
        condition: the dead share above which to warn, or a function of the verdict.
        thresholds: thresholds of the states.

    Attributes:
        ever: whether any census has met the condition.

    Raises:
        TypeError: `condition` is neither a number nor a function.
        ValueError: the number is not a share in [0, 1].
    """

    def __init__(self, condition: Condition, thresholds: Thresholds | None = None) -> None:
        if isinstance(condition, bool) or not (isinstance(condition, int | float) or callable(condition)):
            kind = type(condition).__name__
            raise TypeError(f"alert: expected a share or a function of the verdict, but got {kind}")
        if not callable(condition) and not 0 <= condition <= 1:
            raise ValueError(f"alert: expected a share in [0, 1], but got {condition!r}")
        self._condition, self._thresholds = condition, thresholds
        self._on = self.ever = False

    def look(self, rows: pd.DataFrame, history: Callable[[], pd.DataFrame]) -> str:
        """Return a warning if a census newly meets the condition, otherwise "".

        Args:
            rows: the census.
            history: returns all censuses.
        """
        condition = self._condition
        if callable(condition):
            crossed = bool(condition(verdict(history(), self._thresholds)))
        else:
            crossed = dead_fraction(last_census(rows)) > condition
        new, self._on = crossed and not self._on, crossed
        self.ever |= crossed
        return _sentence(rows, history(), condition) if new else ""


def _sentence(census: pd.DataFrame, history: pd.DataFrame, condition: Condition) -> str:
    """Describe how many units are dead, where most of them are, and since when."""
    rows = last_census(census)
    observed, dead = rows[rows["n"] > 0], rows[rows["state"] == "dead"]
    limit = "" if callable(condition) else f" (the limit is {100 * condition:g} %)"
    share, step = 100 * dead_fraction(rows), int(rows["step"].max())
    text = f"{share:.1f} % of {len(observed):,} units are dead at step {step:,}{limit}."
    if dead.empty:
        return text
    site = dead["site"].value_counts().index[0]
    here = dead[dead["site"] == site]
    lives = lifetimes(history)
    lives = lives[(lives["site"] == site) & lives["unit"].isin(here["unit"])]
    back = lives["revived_at"].notna()  # and died again since
    born, steps = int((lives["born_dead"] & ~back).sum()), lives["died_at"].where(~back).dropna()
    since = [f"{born} since the first census"] if born else []
    if len(steps):
        first, last = int(steps.min()), int(steps.max())
        since.append(f"{len(steps)} since step {first:,}" + (f" to {last:,}" if last > first else ""))
    if back.any():
        since.append(f"{int(back.sum())} again after a revival")
    of = int((observed["site"] == site).sum())
    return f"{text} Most of them are in {site}: {len(here)} of {of}, {' and '.join(since)}."
