"""The result of a search, as a table and as files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.store.files import whole, write_json
from harness.sweeps.threshold_search.seeds import CONFIDENCE, ArmEdge, notes

if TYPE_CHECKING:
    import pandas as pd

NAME = "edge"


@dataclass(frozen=True)
class SearchResult:
    """The edges of all arms.

    Attributes:
        axis: the dotted key.
        low, high: ends of the range, or the smallest and largest stored value.
        log: whether the scale is logarithmic.
        threshold: threshold of the dead share.
        arms: edge of each arm.
        grid: number of runs of a grid with the same resolution; None for stored runs.
        trained: number of runs trained for this search; the others already had a result.
        errors: errors of failed runs.
        left_out: reason → number of stored runs that could not be used.
    """

    axis: str
    low: float
    high: float
    log: bool
    threshold: float
    arms: Sequence[ArmEdge]
    grid: int | None = None
    trained: int = 0
    errors: Sequence[str] = ()
    left_out: dict[str, int] | None = None

    @property
    def tried(self) -> int:
        return sum(arm.tried for arm in self.arms)

    def notes(self, arm: ArmEdge) -> list[str]:
        return notes(arm, self.threshold, self.low, self.high)

    def table(self) -> pd.DataFrame:
        """One row per arm and seed: the arm's keys, seed, and the fields of `SeedEdge`."""
        import pandas as pd

        rows = [
            {**arm.arm, "seed": seed, "axis": self.axis, "threshold": self.threshold, **asdict(edge)}
            for arm in self.arms
            for seed, edge in sorted(arm.seeds.items())
        ]
        return pd.DataFrame(rows).astype({"rising": "boolean"})

    def as_json(self) -> dict[str, Any]:
        """Return plain values: null for non-finite numbers, and `beyond` for a median outside the range."""
        arms = [
            {
                "arm": arm.arm,
                "median": arm.median,
                "beyond": {math.inf: "above", -math.inf: "below"}.get(arm.median),
                "low": arm.low,
                "high": arm.high,
                "coverage": arm.coverage,
                "missing": arm.missing,
                "rising": arm.rising,
                "tried": arm.tried,
                "notes": self.notes(arm),
                "seeds": [{"seed": seed, **asdict(edge)} for seed, edge in sorted(arm.seeds.items())],
            }
            for arm in self.arms
        ]
        facts = {
            "axis": self.axis,
            "between": [self.low, self.high],
            "scale": "log" if self.log else "linear",
            "threshold": self.threshold,
            "confidence": CONFIDENCE,
            "interval": "order statistics over seeds, exact; of the neighbours of each seed's edge",
            "runs": self.tried,
            "grid_runs": self.grid,
            "arms": arms,
        }
        return _plain(facts)


def write(found: SearchResult, folder: Path) -> list[Path]:
    """Write `edge.parquet` and `edge.json`, each atomically.

    Raises:
        OSError: the folder is not writable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table, plain = folder / f"{NAME}.parquet", folder / f"{NAME}.json"
    with whole(table) as part:
        found.table().to_parquet(part, index=False)
    write_json(plain, found.as_json())
    return [table, plain]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
