"""From runs to one tidy table: a row per run, with what was set and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from experiments.claim import Read
from harness.store.runs import Run

#: Column of the table → that of `runs.table`; a share or a number of finished runs, NaN of all others.
OUTCOMES = {
    "dead": "final.dead_fraction",
    "born_dead": "final.born_dead_fraction",
    "died": "final.died_fraction",
    "accuracy": "final.accuracy",
    "test_loss": "final.test_loss",
    "loss": "final.loss",
}
LEFT_OUT = ("run", "path", "output", "force", "status", "seed", "device")


def tidy(runs: Sequence[tuple[str, Run]], read: Read | None = None) -> pd.DataFrame:
    """One row per run, in the order given.

    Args:
        runs: name of the sweep and run.
        read: further outcomes of a run, from its stored tables; asked of finished runs alone.

    Returns:
        sweep, seed, status; every configuration column that varies; the outcomes dead, born_dead, died,
        revived (shares of the observed units), accuracy, test_loss, loss: NaN unless the run finished
        (born_dead, known before the first step, of a diverged run too);
        diverged (1, 0; NaN where it failed); n, the inputs (with an image's positions) that every unit of the
        probe was looked at on; seconds; and what `read` adds.
    """
    raw = pd.DataFrame([run.row() for _, run in runs])
    finished = (raw["status"] == "finished").to_numpy()
    columns: dict[str, Any] = {
        "sweep": [name for name, _ in runs],
        "seed": raw["seed"].to_numpy(int),
        "status": raw["status"].to_numpy(object),
    }
    for name in raw.columns:
        if _varies(raw, str(name)):
            columns[str(name)] = raw[name]
    for name, source in OUTCOMES.items():
        columns[name] = np.where(finished, _numbers(raw, source), np.nan)
    diverged = (raw["status"] == "diverged").to_numpy()
    born = _numbers(raw, "last.born_dead_fraction")
    columns["born_dead"] = np.where(diverged, born, columns["born_dead"])
    with np.errstate(divide="ignore", invalid="ignore"):
        revived = _numbers(raw, "final.revived") / _numbers(raw, "final.units")
    columns["revived"] = np.where(finished, revived, np.nan)
    columns["diverged"] = raw["status"].map({"diverged": 1.0, "finished": 0.0}).astype(float)
    columns["n"] = [_inputs(run) if ok else np.nan for (_, run), ok in zip(runs, finished, strict=True)]
    columns["seconds"] = [float(run.status.get("seconds") or np.nan) for _, run in runs]
    table = pd.DataFrame(columns)
    if read is None:
        return table
    more = [dict(read(run)) if ok else {} for (_, run), ok in zip(runs, finished, strict=True)]
    return pd.concat([table, pd.DataFrame(more, index=table.index)], axis=1)


def _inputs(run: Run) -> float:
    """The least n of the probe's census; NaN without one."""
    census = run.read("census", ["evidence", "n"]).to_pandas()
    return float(census.loc[(census["evidence"] == "probe").to_numpy() & (census["n"] > 0), "n"].min())


def _varies(raw: pd.DataFrame, name: str) -> bool:
    if name in LEFT_OUT or name.startswith(("final.", "last.", "record.", "detect.")):
        return False
    return bool(raw[name].nunique(dropna=False) > 1)


def _numbers(raw: pd.DataFrame, name: str) -> np.ndarray:
    if name not in raw:
        return np.full(len(raw), np.nan)
    return pd.to_numeric(raw[name], errors="coerce").to_numpy(float, na_value=np.nan)
