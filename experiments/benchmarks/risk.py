"""`python -m experiments.benchmarks.risk`: how well the order of units at risk foretells death.

Sweeps of one kind are fitted on, of other kinds predicted, both at a tenth of their steps. The shipped
coefficients (`harness.attribution.risk.COEFFICIENTS`) come from the first table's fit.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from harness import open_runs
from harness.attribution.risk import BASE_RATE, COEFFICIENTS, INTERCEPT, features
from harness.config import plan
from harness.detector.lifetimes import one_evidence
from harness.store.runs import Run
from harness.sweeps.sweep import plan_sweep, run_sweep

COMMON = ("record.census_every=10", "record.tensorboard=false", "train.epochs=20")
FIT = {
    "digits 3x128, SGD": ("optim.lr=0.03,0.1,0.3,0.6,1.0", "bias.offset=0,-0.5", "seed=0,1,2"),
    "digits 2x96, Adam": (
        "optim=adam",
        "optim.lr=0.001,0.003,0.01,0.03",
        "bias.offset=0,-0.5",
        "model.width=96",
        "model.depth=2",
        "data.standardise=true",
        "seed=0,1,2",
    ),
    "digits 3x128, momentum": (
        "optim=momentum",
        "optim.lr=0.01,0.05,0.1",
        "data.standardise=true,false",
        "seed=0,1,2",
    ),
}
OTHERS = {
    "synthetic 3x80, AdamW": (
        "data=synthetic",
        "optim=adamw",
        "optim.lr=0.001,0.003,0.01,0.02",
        "model.width=80",
        "bias.offset=0,-0.4",
        "seed=5,6,7",
    ),
    "synthetic 4x50, momentum": (
        "data=synthetic",
        "data.features=30",
        "data.train_size=3000",
        "optim=momentum",
        "optim.lr=0.02,0.05,0.1,0.3",
        "model.depth=4",
        "model.width=50",
        "seed=5,6,7,8",
    ),
    "digits 5x40, SGD, Xavier": (
        "optim.lr=0.2,0.4,0.8",
        "model.depth=5",
        "model.width=40",
        "init=xavier_uniform",
        "bias.offset=0,-0.2",
        "seed=5,6,7",
    ),
    "digits off centre 2x200, SGD": (
        "data.shift=0,1,2",
        "optim.lr=0.05,0.1",
        "model.depth=2",
        "model.width=200",
        "seed=5,6,7",
    ),
    "digits 3x64, layer norm, Adam": (
        "optim=adam",
        "optim.lr=0.003,0.01,0.03",
        "model.norm=layer",
        "model.width=64",
        "seed=5,6,7",
    ),
}


def units(run: Run) -> pd.DataFrame | None:
    """Features of a run's units at a tenth of its steps, and whether they are dead at the end."""
    history = one_evidence(run.census)
    steps = np.sort(history["step"].unique())
    early = steps[int(np.argmin(np.abs(steps - 0.1 * steps[-1])))]
    then = history[history["step"] == early].set_index(["site", "unit"], drop=False)
    end = history[history["step"] == steps[-1]].set_index(["site", "unit"]).reindex(then.index)
    observed = ~then["state"].isin(("unobserved", "non_finite")) & ~end["state"].isin(
        ("unobserved", "non_finite")
    )
    if not observed.any():
        return None
    found = features(then[observed].reset_index(drop=True))
    return found.assign(died=end.loc[observed, "active"].eq(0).to_numpy(), run=run.name)


def gather(sweeps: dict[str, tuple[str, ...]], folder: Path) -> pd.DataFrame:
    """Train the sweeps (what is there is not trained again) and read their units."""
    parts = []
    for number, (name, overrides) in enumerate(sweeps.items()):
        output = folder / str(number)
        run_sweep(plan_sweep(plan([*COMMON, *overrides, f"output={output}"], multirun=True)))
        found = [units(run) for run in open_runs(output) if run.status.get("state") == "finished"]
        parts += [part.assign(sweep=name) for part in found if part is not None]
    return pd.concat(parts, ignore_index=True)


def scores(rows: pd.DataFrame, coefficients: dict[str, float]) -> tuple[float, float, float]:
    """Area under the ROC curve of "dead now", of the model over all units, and over those alive then."""
    odds = rows[list(coefficients)].to_numpy(float) @ np.array(list(coefficients.values()))
    alive = rows["dead"] == 0
    return (
        float(roc_auc_score(rows["died"], rows["dead"])),
        float(roc_auc_score(rows["died"], odds)),
        float(roc_auc_score(rows.loc[alive, "died"], odds[alive])),
    )


def base_rates(name: str, rows: pd.DataFrame) -> str:
    """How many of the living die, how many the probabilities say, and how far these are off in ten bins."""
    alive = rows[rows["dead"] == 0]
    odds = INTERCEPT + alive[list(COEFFICIENTS)].to_numpy(float) @ np.array(list(COEFFICIENTS.values()))
    predicted = pd.Series(1 / (1 + np.exp(-odds)), index=alive.index)
    bins = alive["died"].astype(float).sub(predicted).groupby((10 * predicted).astype(int))
    error = (bins.mean().abs() * bins.size()).sum() / len(alive)
    shares = f"{100 * alive['died'].mean():.1f} % die, {100 * predicted.mean():.1f} % foretold"
    return f"{name}: {shares}, calibration error {error:.3f}"


def main(folder: Path) -> None:
    """Print the tables."""
    console = Console(highlight=False, width=120)
    fit, others = gather(FIT, folder / "fit"), gather(OTHERS, folder / "others")
    names = list(COEFFICIENTS)
    scale = fit[names].std()
    model = LogisticRegression(max_iter=5000).fit(fit[names] / scale, fit["died"])
    fresh = dict(zip(names, (model.coef_[0] / scale).round(3), strict=True))
    console.print(f"fitted now: {fresh}\nshipped:    {COEFFICIENTS}")
    console.print(
        "the living: " + "; ".join(base_rates(name, r) for name, r in (("fit", fit), ("others", others)))
    )
    console.print(f"shipped: intercept {INTERCEPT}, base rates {BASE_RATE}")
    table = Table(title="Death foretold at a tenth of the steps: area under the ROC curve")
    for name in ("settings", "units", "dead at the end", "dead now", "all units", "alive then"):
        table.add_column(name, justify="left" if name == "settings" else "right")
    groups = [("fitted on", fit), *others.groupby("sweep", sort=False), ("all others", others)]
    for name, rows in groups:
        both = rows.loc[rows["dead"] == 0, "died"].nunique() == 2
        values = [f"{value:.3f}" for value in scores(rows, COEFFICIENTS)] if both else ["", "", ""]
        table.add_row(str(name), f"{len(rows):,}", f"{100 * rows['died'].mean():.1f} %", *values)
    console.print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=None, help="where the runs are kept")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        main(given.folder or Path(temporary))
