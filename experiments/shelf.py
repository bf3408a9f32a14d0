"""Results on disk: per claim and data set a table (Parquet), with facts and verdict (JSON)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.claim import Claim
from experiments.units import Unit
from experiments.verdicts import Finding, Verdict
from harness.store.files import whole, write_json
from harness.store.reading import read_json


@dataclass(frozen=True)
class Result:
    """What a claim was judged from, and how.

    Attributes:
        claim: its name.
        budget: that it was run with.
        table: tidy.
        facts: seconds, hardware, versions, data.
        verdict: None before it is judged.
        data: name of the data set; empty: data of the claim's own.
    """

    claim: str
    budget: str
    table: pd.DataFrame
    facts: Mapping[str, Any] = field(default_factory=dict)
    verdict: Verdict | None = None
    data: str = ""


class Shelf:
    """A folder of results: `<budget>/<data>/<claim>.parquet` and `.json`, without a folder for no data set.

    Example:
        >>> import tempfile
        >>> shelf = Shelf(Path(tempfile.mkdtemp()))
        >>> shelf.put(Result("a", "small", pd.DataFrame({"seed": [0, 1]}), {"seconds": 1.0}))
        >>> shelf.get("a", "small").table["seed"].tolist(), shelf.get("a", "full")
        ([0, 1], None)
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, result: Result) -> None:
        """Keep a result, in place of an earlier one."""
        path = self._path(result.claim, result.budget, result.data)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as part:
            result.table.to_parquet(part, compression="zstd", index=False)
        said = None if result.verdict is None else _plain(asdict(result.verdict))
        write_json(path.with_suffix(".json"), {"facts": dict(result.facts), "verdict": said})

    def get(self, claim: str, budget: str, data: str = "") -> Result | None:
        """A result; None if there is none.

        Raises:
            ValueError: its files are damaged.
        """
        path = self._path(claim, budget, data)
        notes = self._notes(path)
        if notes is None or not path.is_file():
            return None
        try:
            table = pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} cannot be read ({error})") from None
        return Result(claim, budget, table, notes["facts"], _verdict(notes["verdict"]), data)

    def of(self, claim: Claim, budget: str) -> list[Result]:
        """The results of a claim on its data sets, as far as they are there."""
        found = (self.get(claim.name, budget, data) for data in claim.tried_on)
        return [result for result in found if result is not None]

    def verdict(self, claim: str, budget: str, data: str = "") -> Verdict | None:
        """The verdict alone, without the table."""
        notes = self._notes(self._path(claim, budget, data))
        return None if notes is None else _verdict(notes["verdict"])

    def _path(self, claim: str, budget: str, data: str) -> Path:
        return self.folder / budget / data / f"{claim}.parquet"

    def _notes(self, path: Path) -> dict[str, Any] | None:
        path = path.with_suffix(".json")
        if not path.is_file():
            return None
        notes = read_json(path)
        if notes is None:
            raise ValueError(f"{path} cannot be read: remove it, and run the claim again")
        return notes


def with_verdict(result: Result, verdict: Verdict) -> Result:
    """A result that has been judged; what the table alone tells is filled in."""
    table = result.table
    seeds = int(table["seed"].nunique()) if "seed" in table else 0
    diverged = int((table["diverged"] == 1).sum()) if "diverged" in table else 0
    return replace(result, verdict=replace(verdict, runs=len(table), seeds=seeds, diverged=diverged))


def _plain(value: Any) -> Any:
    """JSON without NaN and infinities: null, and words."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _verdict(said: dict[str, Any] | None) -> Verdict | None:
    if said is None or any("power" not in one for one in said["findings"]):
        return None  # not judged, or by the rules of an earlier version
    restored: dict[str, Any] = {
        key: tuple(_finding(one) for one in said[key]) for key in ("findings", "also")
    }
    restored["p"] = float("nan") if said["p"] is None else said["p"]
    return Verdict(**(said | restored))


def _finding(said: dict[str, Any]) -> Finding:
    numbers = ("effect", "low", "high", "p", "margin", "confidence", "arm", "baseline", "power")
    restored: dict[str, Any] = {
        key: float("nan") if said[key] is None else float(said[key]) for key in numbers
    }
    restored["composite"] = tuple(float("nan") if one is None else float(one) for one in said["composite"])
    restored["unit"] = Unit(**said["unit"])
    return Finding(**(said | restored))
