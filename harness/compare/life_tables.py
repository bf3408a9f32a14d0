"""Counts of the lives of all units of many runs: one pass over the censuses, one run in memory at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.compare.frames import columns_of, outcomes, with_settings
from harness.detector.grid import COLUMNS, Grid, census_grid

if TYPE_CHECKING:
    from harness.store.runs import Runs

COUNTS = (
    *("observed", "dead", "born_dead", "entered", "died", "ended"),
    *("deaths", "revivals", "alive_steps", "dead_steps"),
)


@dataclass(frozen=True)
class Lives:
    """The counts behind survival curves, log-rank tests and rates.

    Attributes:
        outcomes: as returned by `harness.compare.outcomes`, one row per run.
        counts: one row per run (`place`: its row in `outcomes`), site and census: `place, site, step` and
            units observed, dead, born_dead (dead in their first census), entered (alive in their first), died
            (for the first time, after having entered), ended (their last census, without a death before),
            deaths, revivals, and alive_steps, dead_steps (unit-steps since the last census, by the state
            then).
        unread: run → why its censuses could not be read.
    """

    outcomes: pd.DataFrame
    counts: pd.DataFrame
    unread: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        sites = self.counts["site"].nunique()
        return f"<Lives of {len(self.outcomes):,} runs, {sites:,} sites>"

    @property
    def factors(self) -> list[str]:
        """The factors that vary among the runs."""
        return columns_of(self.outcomes)

    def of(self, rows: Any) -> Lives:
        """The lives of some of the runs.

        Args:
            rows: a mask over the rows of `outcomes` (bool, one per run), or distinct row numbers.

        Raises:
            ValueError: `rows` is neither.

        Example:
            >>> table = pd.DataFrame({"run": ["a", "b", "c"], "status": "finished", "seed": [0, 1, 2]})
            >>> three = Lives(table, pd.DataFrame({"place": [0, 1, 2], "step": 0}))
            >>> three.of(three.outcomes["seed"] > 0).outcomes["run"].tolist()
            ['b', 'c']
        """
        wanted = _row_numbers(rows, len(self.outcomes))
        place = self.counts["place"].to_numpy(int)
        new = np.full(len(self.outcomes), -1)
        new[wanted] = np.arange(len(wanted))
        there = new[place] >= 0
        counts = self.counts[there].assign(place=new[place[there]])
        return Lives(
            self.outcomes.iloc[wanted].reset_index(drop=True), counts.reset_index(drop=True), self.unread
        )


def _row_numbers(rows: Any, runs: int) -> np.ndarray:
    """Convert a mask or row numbers to row numbers.

    Raises:
        ValueError: `rows` is neither.
    """
    expected = f"of: expected a mask of {runs} booleans or row numbers below {runs}, each once, but got"
    found = np.asarray(rows)
    if found.ndim != 1:
        raise ValueError(f"{expected} an array with {found.ndim} axes")
    if found.dtype == bool:
        if len(found) != runs:
            raise ValueError(f"{expected} {len(found)} booleans")
        return np.flatnonzero(found)
    if len(found) and not np.issubdtype(found.dtype, np.integer):
        raise ValueError(f"{expected} values of the kind {found.dtype}")
    found = found.astype(int)
    wrong = found[(found < 0) | (found >= runs)]
    if len(wrong) or len(np.unique(found)) < len(found):
        raise ValueError(f"{expected} {f'the number {wrong[0]}' if len(wrong) else 'a number twice'}")
    return found


def lives(runs: Runs, *, also: tuple[str, ...] = ()) -> Lives:
    """Count the lives of all units of many runs.

    Reads only the columns evidence, step, site, unit and state. Runs that diverged, failed or are still
    running count up to their last census.

    Args:
        runs: any runs.
        also: columns of the configuration to keep besides the factors.

    Example:
        >>> from harness.store.runs import Runs
        >>> lives(Runs([])).counts.empty
        True
    """
    tables: list[pd.DataFrame] = []
    unread: dict[str, str] = {}
    placed = [run for run in runs if run.config]  # others belong to no arm, and have no outcome
    known = with_settings(runs.table)
    for place, run in enumerate(placed[k] for k in known.index):
        try:
            table = run.read("census", COLUMNS)
        except (OSError, ValueError) as error:  # a damaged table must not affect other runs
            unread[run.name] = str(error)
        else:
            if len(table):
                tables.append(count(census_grid(table.to_pandas())).assign(place=place))
    columns = ["place", "site", "step", *COUNTS]
    counts = (
        pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=pd.Index(columns))
    )
    return Lives(outcomes(known, also), counts, unread)


def count(grid: Grid) -> pd.DataFrame:
    """The counts of one run: one row per census and site."""
    observed, dead, moves = grid.observed, grid.dead, grid.moves
    censuses = len(observed)
    number = np.arange(censuses)[:, None]
    seen = observed.any(axis=0)
    first = (number == observed.argmax(axis=0)) & seen
    last = (number == censuses - 1 - observed[::-1].argmax(axis=0)) & seen
    born = (first & dead).any(axis=0)
    alive_before = moves.known & ~moves.before
    deaths = alive_before & dead
    died = deaths & (number == deaths.argmax(axis=0)) & ~born
    matrices = {
        "observed": observed,
        "dead": dead,
        "born_dead": first & dead,
        "entered": first & ~dead,
        "died": died,
        "ended": last & ~died.any(axis=0) & ~born,
        "deaths": deaths,
        "revivals": moves.known & moves.before & ~dead,
        "alive_steps": np.where(alive_before, moves.gap, 0),
        "dead_steps": np.where(moves.before, moves.gap, 0),
    }
    sites = len(grid.starts)
    table = {"site": np.tile(grid.sites.astype(object), censuses), "step": np.repeat(grid.step, sites)}
    return pd.DataFrame({**table, **{name: grid.per_site(m).ravel() for name, m in matrices.items()}})


def as_lives(runs: Runs | Lives) -> Lives:
    """The lives of runs, counted if necessary."""
    return runs if isinstance(runs, Lives) else lives(runs)
