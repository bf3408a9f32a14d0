"""The censuses of all members at once: columns, verdicts, and changes since the last census.

Legend: K members, U units of all sites, S sites.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from harness.config import RunSpec
from harness.detector.states import STATES, rate_upper, state_codes
from harness.graph.plan import Site
from harness.store.schema import CENSUS

DEAD, NON_FINITE = STATES.index("dead"), STATES.index("non_finite")
MOST = 2**17  # largest n of which the bounds are kept
UNKNOWN, ALIVE, GONE = -1, 0, 1  # last known state of a unit


class Change(NamedTuple):
    """`units` units of `site` "died" or "revived" in the member at `place` of the stack."""

    place: int
    kind: str
    site: str
    units: int


class Verdicts:
    """Like `harness.detector.states.classify`, with each member's own thresholds.

    Args:
        specs: the members, in the order of the stack.
    """

    def __init__(self, specs: Sequence[RunSpec]) -> None:
        self._rare = np.array([[spec.detect.rare] for spec in specs])
        self._confidence = np.array([spec.detect.confidence for spec in specs])
        self._bounds: dict[tuple[float, int], np.ndarray] = {}

    def add(self, columns: dict[str, np.ndarray]) -> None:
        """Add `rate_upper` and `state` (an index into STATES) to a census with columns (K, U)."""
        n, active = columns["n"], columns["active"]
        upper = np.empty(n.shape)
        for confidence in np.unique(self._confidence):
            for inputs in np.unique(n[0]):
                here = np.ix_(self._confidence == confidence, n[0] == inputs)
                upper[here] = self._upper(active[here], int(inputs), float(confidence))
        columns["rate_upper"] = upper
        counts = n, active, columns["non_finite"], columns["grad_rms"]
        columns["state"] = state_codes(*counts, self._rare)

    def _upper(self, active: np.ndarray, n: int, confidence: float) -> np.ndarray:
        """Compute the bounds of units with the same n, once per distinct value of `active`."""
        if n > MOST:
            values, places = np.unique(active, return_inverse=True)
            return rate_upper(values, np.full(len(values), n), confidence)[places].reshape(active.shape)
        known = self._bounds.get((confidence, n))
        if known is None:
            if len(self._bounds) > 64:
                self._bounds.clear()
            known = self._bounds[confidence, n] = np.full(n + 1, np.nan)
        found = known[active]
        new = np.unique(active[np.isnan(found)])
        if len(new):
            known[new] = rate_upper(new, np.full(len(new), n), confidence)
            found = known[active]
        return found


def last_known(state: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Update the last known states after a census; non-finite units keep their former state.

    Example:
        >>> last_known(np.array([DEAD, NON_FINITE, NON_FINITE]), np.array([ALIVE, GONE, UNKNOWN])).tolist()
        [1, 1, -1]
    """
    now = np.where(state == DEAD, GONE, ALIVE)
    return np.where(state == NON_FINITE, before, now).astype(np.int8)


class Layout:
    """Maps the U columns to units of sites.

    Args:
        sites: the sites that a Recorder finds in one member.
    """

    def __init__(self, sites: Sequence[Site]) -> None:
        self.sites = tuple(sites)
        sizes = [site.size for site in sites]
        self.starts = np.cumsum([0, *sizes[:-1]])
        self.units = np.concatenate([np.arange(size, dtype=np.int32) for size in sizes])
        self.site = np.repeat(np.arange(len(sites), dtype=np.int32), sizes)

    def changes(self, before: np.ndarray, after: np.ndarray) -> list[Change]:
        """Return deaths and revivals between two last known states (K, U), by kind, member and site."""
        found = []
        for kind, changed in (
            ("died", (before == ALIVE) & (after == GONE)),
            ("revived", (before == GONE) & (after == ALIVE)),
        ):
            if changed.any():
                counts = np.add.reduceat(changed, self.starts, axis=1, dtype=np.int64)
                found += [
                    Change(int(k), kind, self.sites[s].name, int(counts[k, s]))
                    for k, s in zip(*np.nonzero(counts), strict=True)
                ]
        return found

    def table(self, parts: Sequence[tuple[str, dict[str, np.ndarray]]], step: int) -> pa.RecordBatch:
        """Return the concatenated censuses of all members: K · E · U rows for E parts of evidence.

        Args:
            parts: evidence and columns (K, U), in the order of a member's rows.
            step: step of the census.
        """
        members = len(parts[0][1]["n"])
        many = members * len(parts)
        words = {
            "evidence": (
                np.tile(np.repeat(np.arange(len(parts), dtype=np.int32), len(self.units)), members),
                [evidence for evidence, _ in parts],
            ),
            "site": (np.tile(self.site, many), [site.name for site in self.sites]),
            "state": (_joined(parts, "state").astype(np.int32), list(STATES)),
        }
        rows = many * len(self.units)
        plain = {"step": np.full(rows, step, np.int64), "unit": np.tile(self.units, many)}
        arrays = []
        for field in CENSUS:
            if field.name in words:
                codes, names = words[field.name]
                coded = pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(names, pa.string()))
                arrays.append(coded.dictionary_decode())
                continue
            column = plain[field.name] if field.name in plain else _joined(parts, field.name)
            kind = field.type.to_pandas_dtype()
            with np.errstate(over="ignore"):
                arrays.append(pa.array(column.astype(kind, copy=False), type=field.type, from_pandas=False))
        return pa.RecordBatch.from_arrays(arrays, schema=CENSUS)


def _joined(parts: Sequence[tuple[str, dict[str, np.ndarray]]], name: str) -> np.ndarray:
    return np.concatenate([columns[name] for _, columns in parts], 1).reshape(-1)
