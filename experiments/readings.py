"""Further outcomes of one run, read from its stored tables: what a claim's `read` is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from experiments.claim import Read
from harness.detector.dormancy import dormancy
from harness.detector.lifetimes import lifetimes
from harness.store.runs import Run

TAU = 0.025  # of gradient dormancy


def both(*reads: Read) -> Read:
    """Several readings as one."""

    def read(run: Run) -> dict[str, Any]:
        return {key: value for one in reads for key, value in one(run).items()}

    return read


def layers(run: Run) -> dict[str, float]:
    """Dead share by layer, before and after training: born_dead_1, …, dead_1, …, on the probe."""
    probe = _census(run, "probe", "step", "site", "state")
    found = {}
    for name, step in (("born_dead", probe["step"].min()), ("dead", probe["step"].max())):
        rows = probe[probe["step"] == step]
        shares = (rows["state"] == "dead").groupby(rows["site"], sort=False).mean()
        found |= {f"{name}_{k}": float(share) for k, share in enumerate(shares, 1)}
    return found


def gradients(run: Run) -> dict[str, float]:
    """Gradient-dormant share of the last window of the training stream; the dead ones are among them.

    A unit is dormant if the root mean square of its gradient over the window is at most 0.025 of its layer's
    mean (after GraMa, 2505.24061).
    """
    stream = _census(run, "stream", "evidence", "step", "site", "unit", "state", "grad_rms")
    last = stream[stream["step"] == stream["step"].max()]
    table = dormancy(last, score="grad_rms", taus=(TAU,))
    return {"gradient_dormant_share": float(table["dormant"].sum() / max(1, table["units"].sum()))}


def sparsity(run: Run) -> dict[str, float]:
    """Mean share of the probe's inputs on which a gate is shut: of all units, and of those that live."""
    probe = _census(run, "probe", "step", "state", "rate")
    found = {}
    for name, step in (("before", probe["step"].min()), ("after", probe["step"].max())):
        rows = probe[probe["step"] == step]
        found[f"silent_{name}_share"] = float(1 - rows["rate"].mean())
        found[f"silent_living_{name}_share"] = float(1 - rows.loc[rows["state"] != "dead", "rate"].mean())
    return found


def recoveries(run: Run) -> dict[str, float]:
    """Of the units that died, the share that stayed dead ever after, by layer: on the training stream.

    Dead means silent in a whole window of the stream. NaN where no unit of the layer died.
    """
    stream = _census(run, "stream", "evidence", "step", "site", "unit", "state")
    lives = lifetimes(stream)
    found: dict[str, float] = {}
    for k, (_, layer) in enumerate(lives.groupby("site", sort=False), 1):
        ever = layer[layer["died_at"].notna() | layer["born_dead"]]
        found[f"stayed_dead_{k}_share"] = float(ever["revived_at"].isna().mean()) if len(ever) else np.nan
        found[f"ever_dead_{k}"] = float(len(ever))
    return found


def revivals(run: Run, times: int) -> dict[str, float]:
    """How long the dead stay dead, by layer and by windows of the training stream since a unit's first death.

    Dead means silent in a whole window. Columns at_risk_{layer}_{k}: units that were still dead k - 1 windows
    after, and were observed in the next one; revived_{layer}_{k}: those of them that fired in it.

    Args:
        run: it.
        times: up to which k.
    """
    stream = _census(run, "stream", "evidence", "step", "site", "unit", "state")
    steps = np.unique(stream["step"])
    place = pd.Series(np.arange(len(steps)), index=steps)
    found: dict[str, float] = {}
    for layer, (_, lives) in enumerate(lifetimes(stream).groupby("site", sort=False), 1):
        began = lives["first"].where(lives["born_dead"], lives["died_at"])
        ever = began.notna()
        start = place[began[ever].astype(int)].to_numpy()
        back = lives.loc[ever, "revived_at"].astype(float)
        end = np.where(back.notna(), back.map(place), len(steps) - 1)
        lasted = end - start  # windows until it fired again, or until the last one
        for k in range(1, times + 1):
            found[f"at_risk_{layer}_{k}"] = float((lasted >= k).sum())
            found[f"revived_{layer}_{k}"] = float(((lasted == k) & back.notna().to_numpy()).sum())
    return found


def first_to_last_gradient(run: Run) -> dict[str, float]:
    """log10 of the first layer's over the last layer's gradient at the first step, w.r.t. pre-activations."""
    stream = _census(run, "stream", "step", "site", "grad_rms")
    first = stream[stream["step"] == stream["step"].min()]
    rms = np.sqrt(np.square(first["grad_rms"]).groupby(first["site"], sort=False).mean()).to_numpy(float)
    with np.errstate(divide="ignore"):
        return {"gradient_ratio": float(np.log10(rms[0] / rms[-1])) if rms[-1] > 0 else np.nan}


def epochs_to(levels: Mapping[str, Mapping[str, float]]) -> Callable[[Run], dict[str, float]]:
    """Epochs until the test accuracy first reaches levels, between two epochs by a straight line.

    Args:
        levels: name of the data set → column → test accuracy.

    A run that does not get there counts with the whole budget, which is the least that it would have taken.
    """

    def read(run: Run) -> dict[str, float]:
        steps = run.read("steps", ["epoch", "test_accuracy"]).to_pandas()
        tested = steps[steps["test_accuracy"].notna()]
        x = np.concatenate([[0.0], tested["epoch"].to_numpy(float)])
        y = np.concatenate([[0.0], tested["test_accuracy"].to_numpy(float)])
        return {name: _first(x, y, level) for name, level in levels[run.config["data"]["name"]].items()}

    return read


def _first(x: np.ndarray, y: np.ndarray, level: float) -> float:
    """The x at which y, which starts at 0, first reaches a level; the last x if it never does."""
    there = np.flatnonzero(y >= level)
    if not len(there):
        return float(x[-1])
    k = int(there[0])
    return float(x[k - 1] + (level - y[k - 1]) / (y[k] - y[k - 1]) * (x[k] - x[k - 1]))


def _census(run: Run, evidence: str, *columns: str) -> pd.DataFrame:
    """Some columns of the censuses of one kind of evidence."""
    wanted = list(dict.fromkeys(["evidence", *columns]))
    table = run.read("census", wanted).to_pandas()
    kept = table[(table["evidence"] == evidence).to_numpy()]
    return kept.astype({name: object for name in ("evidence", "site", "state") if name in kept})
