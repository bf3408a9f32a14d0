"""Windows: statistics of every site since the last census, and the census that closes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import torch

from harness.detector.states import CENSUS_COLUMNS, Thresholds, classify
from harness.graph.plan import Site, site_from
from harness.graph.producers import Producer
from harness.hooks.arguments import WrongArgument
from harness.kernels.statistics import (
    UnitStatistics,
    empty,
    finalise,
    from_state,
    settle,
    to_state,
)
from harness.kernels.unit_statistic import UnitStatistic, column_names, for_site
from harness.recording.distributed import all_reduce

NO_SITE = Site("", "", -1, None, ())


class WindowAccumulator:
    """Receives the data of the taps: one UnitStatistics per site.

    Args:
        evidence: "stream" or "probe", for the census column.
        on_site: called with every new site and its producer.
        statistics: user-defined statistics; each site has copies of them.

    Attributes:
        before_reading: called before the sums are read or written, and before a site is added.
    """

    def __init__(
        self,
        evidence: str,
        on_site: Callable[[int, Site, Producer | None], None] | None = None,
        statistics: Sequence[UnitStatistic] = (),
    ) -> None:
        self.evidence = evidence
        self._prototypes, self._extra = statistics, column_names(statistics)
        self.sites: list[Site] = []
        self._statistics: list[UnitStatistics] = []
        self.before_reading: Callable[[], None] | None = None
        self._restored: dict[str, tuple[Site, dict[str, Any]]] = {}  # sites of a loaded state, not yet called
        self._on_site = on_site
        self._trained = False

    @property
    def statistics(self) -> Sequence[UnitStatistics]:
        """Statistics of the sites, in the same order."""
        return self._statistics

    # --- called by the taps -----------------------------------------------------------------------

    def register_site(
        self, index: int, site: Site, device: torch.device, producer: Producer | None
    ) -> UnitStatistics:
        if self.before_reading is not None:
            self.before_reading()
        saved = self._restored.get(site.name)
        with torch.inference_mode(False):  # the sums outlive the forward pass, so no inference tensors
            statistics = empty(site.size, device) if saved is None else _continued(site, saved, device)
            statistics.extensions = for_site(self._prototypes, site.size, device)
        self._restored.pop(site.name, None)
        self.sites.append(site)
        self._statistics.append(statistics)
        if self._on_site is not None:
            self._on_site(index, site, producer)
        return self._statistics[index]

    def replace_site(self, index: int, site: Site) -> None:
        self.sites[index] = site
        if self._on_site is not None:
            self._on_site(index, site, None)

    # --- censuses ---------------------------------------------------------------------------------

    @property
    def nonempty(self) -> bool:
        self._settle()
        return any(s.n or s.grad_n for s in self._statistics)

    @property
    def trained(self) -> bool:
        """Whether a backward pass was ever seen."""
        return self._trained or any(s.grad_n for s in self._statistics)

    @property
    def restored_names(self) -> set[str]:
        """Sites of a loaded state that have not been called since."""
        return set(self._restored)

    def close(
        self,
        step: int,
        unseen: Sequence[Site],
        grad_norm: Callable[[int, int], np.ndarray] | None,
        known: Sequence[Site] = (),
        *,
        across_ranks: bool = False,
    ) -> dict[str, np.ndarray]:
        """Return the columns of the census (without verdicts), and start new windows.

        Args:
            step: step of the census.
            unseen: sites that cannot be observed; they get one row each.
            grad_norm: (index, size) → norms of the incoming gradients, if they are observed.
            known: sites seen by the probe; they get rows with n = 0 until a forward pass is observed here.
            across_ranks: whether to take one census of all ranks (a collective call).
        """
        self._settle()
        sites, statistics = list(self.sites), list(self._statistics)
        order = {site.name: index for index, site in enumerate(sites)}
        if across_ranks:
            sites, statistics = all_reduce(sites, statistics, extended=bool(self._prototypes))
        parts = []
        for site, running in zip(sites, statistics, strict=True):
            index = order.get(site.name)
            norm = None if grad_norm is None or index is None else grad_norm(index, site.size)
            parts.append(_rows(site, running, norm))
        self._trained = self.trained
        for running in self._statistics:
            running.clear()
        for name, (site, state) in self._restored.items():
            waiting = from_state(state)
            parts.append(_rows(site, waiting))
            waiting.clear()
            self._restored[name] = site, to_state(waiting)
        if not parts:
            parts = [_rows(site, empty(site.size)) for site in known]
        parts += [_unobserved(site) for site in unseen]
        parts = parts or [{name: column[:0] for name, column in _unobserved(NO_SITE).items()}]
        names = [c for c in CENSUS_COLUMNS if c not in ("evidence", "step", "rate_upper", "state")]
        for part in parts:  # user-defined columns are NaN where nothing was observed
            part |= {name: np.full(len(part["unit"]), np.nan) for name in self._extra if name not in part}
        names += self._extra
        columns = {name: np.concatenate([part[name] for part in parts]) for name in names}
        rows = len(columns["unit"])
        columns["evidence"] = np.full(rows, self.evidence, dtype=object)
        columns["step"] = np.full(rows, step, np.int64)
        return columns

    # --- state ------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Site name → its description and running sums, as tensors and plain values."""
        self._settle()
        waiting = {
            name: {"site": asdict(site), "sums": sums} for name, (site, sums) in self._restored.items()
        }
        running = {
            site.name: {"site": asdict(site), "sums": to_state(statistics)}
            for site, statistics in zip(self.sites, self._statistics, strict=True)
        }
        return waiting | running

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the sums of `state_dict`; sites not called yet restore theirs at their first call.

        Raises:
            ValueError: a site has another number of units, so the state belongs to another model.
        """
        self._settle()
        self._restored = {name: (site_from(saved["site"]), saved["sums"]) for name, saved in state.items()}
        for index, site in enumerate(self.sites):
            saved = self._restored.pop(site.name, None)
            if saved is not None:
                _continued(site, saved, "cpu", self._statistics[index])

    def _settle(self) -> None:
        settle(self._statistics)
        if self.before_reading is not None:
            self.before_reading()


def _continued(
    site: Site,
    saved: tuple[Site, dict[str, Any]],
    device: torch.device | str,
    into: UnitStatistics | None = None,
) -> UnitStatistics:
    if saved[0].size != site.size:
        raise WrongArgument(
            f"the recorder's state is of another model: expected {site.size} units at {site.name!r}, "
            f"but the state has {saved[0].size}"
        )
    return from_state(saved[1], device, into)


def _rows(site: Site, statistics: UnitStatistics, norm: np.ndarray | None = None) -> dict[str, np.ndarray]:
    columns = finalise(statistics)
    for extension in statistics.extensions:
        for name, column in extension.columns().items():
            if np.shape(column) != (site.size,):
                what = f"statistics: {type(extension).__name__}.columns()[{name!r}] at {site.name!r}"
                raise WrongArgument(f"{what}: expected ({site.size},), but got the shape {np.shape(column)}")
            columns[name] = column
    columns["unit"] = np.arange(site.size, dtype=np.int64)
    columns["grad_norm"] = np.full(site.size, np.nan) if norm is None else norm
    columns["site"] = np.full(site.size, site.name, dtype=object)
    return columns


def frame(columns: dict[str, np.ndarray], thresholds: Thresholds | None = None) -> pd.DataFrame:
    """Return a census as a DataFrame with states, in the fixed column order, user-defined columns last."""
    units = classify(pd.DataFrame(columns), thresholds)
    return units[[*CENSUS_COLUMNS, *(name for name in columns if name not in CENSUS_COLUMNS)]]


def _unobserved(site: Site) -> dict[str, np.ndarray]:
    nothing = np.array([np.nan])
    zero = np.zeros(1, np.int64)
    return {
        "n": zero,
        "active": zero,
        "rate": nothing,
        "silent_for": zero,
        "mean": nothing,
        "std": nothing,
        "max": nothing,
        "non_finite": zero,
        "grad_rms": nothing,
        "unit": np.array([-1], np.int64),
        "grad_norm": nothing,
        "site": np.array([site.name], dtype=object),
    }
