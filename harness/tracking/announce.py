"""Announcer: report every census to loggers, and alerts to Python's log."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from harness.detector.states import Thresholds, dead_fraction
from harness.detector.verdict import last_census, verdict
from harness.tracking.alert import LOG, Alert
from harness.tracking.loggers import Logger

PREFIX = "dead_units"
COUNTED = ("dead", "rare")


class Announcer:
    """Reports the censuses of one training.

    Args:
        loggers: receive numbers, images and texts.
        alert: warns when the dead share crosses a threshold; None: no alert.
        thresholds: thresholds of the states.
    """

    def __init__(self, loggers: Sequence[Logger], alert: Alert | None, thresholds: Thresholds) -> None:
        self._loggers, self._alert, self._thresholds = loggers, alert, thresholds
        self._histories: dict[str, _UnitHistories] = {}  # by site

    def census(self, census: pd.DataFrame, history: Callable[[], pd.DataFrame]) -> None:
        """Report a census.

        Args:
            census: its rows.
            history: returns all censuses.
        """
        rows = last_census(census)
        step = int(rows["step"].max())
        if self._loggers:
            self._tell(rows, census, step)
        said = "" if self._alert is None else self._alert.look(census, history)
        if said:
            LOG.disabled = False  # logging.config disables loggers that it does not know
            LOG.warning(said)
            for logger in self._loggers:
                logger.alert(said, step)

    def finish(self, history: pd.DataFrame) -> None:
        """Report the verdict and the map of units over time."""
        if history.empty or not self._loggers:
            return
        found = verdict(history, self._thresholds)
        for logger in self._loggers:
            logger.text(f"{PREFIX}/verdict", found.text, found.step)
        if (history["n"] > 0).any():
            pixels = _rate_map(history)
            for logger in self._loggers:
                logger.image(f"{PREFIX}/rate_map", pixels, found.step)

    def _tell(self, rows: pd.DataFrame, census: pd.DataFrame, step: int) -> None:
        values = {"dead_fraction": dead_fraction(rows)}
        if not np.isnan(values["dead_fraction"]):  # else no unit was observed and finite
            values |= {name: float(rows["state"].eq(name).sum()) for name in COUNTED}
        stream = census[census["evidence"].eq("stream")]
        if not np.isnan(dead_fraction(stream)):  # a probe has no backward
            values["starved"] = float(stream["state"].eq("starved").sum())
        for site, units in rows[rows["unit"] >= 0].groupby("site", sort=False):  # -1: unknown width
            own = self._histories.setdefault(str(site), _UnitHistories(len(units)))
            own.add(units)
            values[f"{site}/dead_fraction"] = dead_fraction(units)
        for name in ("born_dead", "died", "revived") if "dead" in values else ():
            values[name] = float(sum(int(getattr(own, name).sum()) for own in self._histories.values()))
        known = {f"{PREFIX}/{name}": value for name, value in values.items() if value == value}
        for logger in self._loggers:
            logger.scalars(known, step)
            for site, units in rows[rows["n"] > 0].groupby("site", sort=False):
                logger.histogram(f"{PREFIX}/{site}/rate", units["rate"].to_numpy(), step)


class _UnitHistories:
    """Tracks which units of a site were born dead, and which have ever died or revived."""

    def __init__(self, units: int) -> None:
        self._seen, self._dead = np.zeros(units, bool), np.zeros(units, bool)
        self.born_dead, self.died, self.revived = (np.zeros(units, bool) for _ in range(3))

    def add(self, units: pd.DataFrame) -> None:
        """Add the next census of the site."""
        known = (units["n"] > 0).to_numpy() & (units["state"] != "non_finite").to_numpy()
        dead = (units["state"] == "dead").to_numpy()
        self.born_dead |= known & ~self._seen & dead
        self.died |= known & self._seen & dead & ~self._dead
        self.revived |= known & self._seen & ~dead & self._dead
        self._dead = np.where(known, dead, self._dead)
        self._seen |= known


def _rate_map(history: pd.DataFrame) -> np.ndarray:
    """Draw the unit × time map as pixels (height, width, 3), uint8."""
    from harness.report.images import pixels
    from harness.report.plots.units import rate_map

    return pixels(rate_map(history))
