"""`python -m experiments.benchmarks.causes`: faults injected for real, diagnosed through the public API.

Every fault of `faults.FAULTS` × doses × networks × optimizers × seeds, once on settings on which the rules
were developed and once on others; the thresholds were frozen before the others were run.
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import warnings
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

import harness
from experiments.benchmarks.faults import FAULTS, Fault, begin
from experiments.benchmarks.trainings import Setting
from harness.attribution.evidence import FACTORS

DEVELOPMENT = (
    *(
        Setting(network, optimizer, "digits, standardised", lr)
        for network in ("MLP 3x128", "MLP 3x128, batch norm")
        for optimizer, lr in (("sgd", 0.1), ("adam", 1e-3))
    ),
    Setting("MLP 5x64", "momentum", "Gaussian classes", 0.01, batch=32, steps=500),
    Setting("MLP 5x64", "adam", "Gaussian classes", 2e-3, batch=32, steps=500),
    Setting("CNN, batch norm", "momentum", "digits in [0, 1]", 0.01, batch=32, steps=300),
    Setting("CNN, batch norm", "adam", "digits in [0, 1]", 1e-3, batch=32, steps=300),
)
OTHERS = tuple(
    Setting(network, optimizer, data, lr, batch=48, steps=350)
    for network, data in (("MLP 4x96", "digits in [0, 1]"), ("MLP 2x80, batch norm", "Gaussian classes"))
    for optimizer, lr in (("momentum", 0.02), ("adam", 1.5e-3))
)
EFFECT = 0.1  # share of dead units beyond the twin's from which a fault had an effect


def jobs(settings: tuple[Setting, ...], seeds: int) -> list[tuple[Setting, int, int, float]]:
    """(setting, seed, number of the fault, dose)."""
    return [
        (setting, seed, number, dose)
        for setting in settings
        for seed in range(seeds)
        for number, fault in enumerate(FAULTS)
        if fault.needs(setting)
        for dose in fault.doses
    ]


def one(job: tuple[Setting, int, int, float]) -> dict[str, Any]:
    """A faulty training and its twin."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    setting, seed, number, dose = job
    fault = FAULTS[number]
    ill = train(setting, seed, fault, dose, healthy=False)
    twin = twin_of(fault.base(setting), seed, number if fault.twin is not FAULTS[0].twin else 0)
    effect = ill.dead - twin.dead >= EFFECT or (ill.diverged and not twin.diverged)
    return {
        "setting": setting.name,
        "fault": fault.name,
        "truth": fault.label,
        "dose": dose,
        "seed": seed,
        "dead": ill.dead,
        "twin": twin.dead,
        "diverged": ill.diverged,
        "effect": effect or fault.label == "none",
        "label": ill.label,
        "twin_label": twin.label,
        "right": ill.label == fault.label,
        "gap": ill.gap,
        "text": ill.text,
    }


@dataclass(frozen=True)
class Result:
    """One training, diagnosed."""

    dead: float
    diverged: bool
    label: str
    gap: float  # |Σ Shapley - (v(all) - v(none))|, the largest over the units
    text: str


def train(setting: Setting, seed: int, fault: Fault, dose: float = 0.0, *, healthy: bool) -> Result:
    """An ordinary loop around the public API (arguments as in `faults.begin`)."""
    training = begin(setting, seed, fault, dose, healthy=healthy)
    optimizer, model, diverged = training.optimizer, training.model, False
    probe, _ = training.held_out()
    with harness.Recorder(
        model, optimizer=optimizer, census_every=20, probe=probe, evidence=True
    ) as recorder:
        for step in range(training.setting.steps):
            loss = training.loss_of(model, training.batch_at(step))
            optimizer.zero_grad()
            (loss * training.loss_at(step)).backward()
            optimizer.step()
            recorder.step(loss=loss)
            if not torch.isfinite(loss):
                diverged = True
                break
    units = recorder.evidence().units
    gap = (units[list(FACTORS)].sum(axis=1) - (units["rate_now"] - units["rate_then"])).abs().max()
    found = recorder.diagnose()
    history = recorder.history()
    kind = history[history["evidence"].eq("probe")]
    last = kind[kind["step"].eq(kind["step"].max())]
    stream = history[history["evidence"].eq("stream")]
    latest = stream[stream["step"].eq(stream["step"].max())]
    useless = ("dead", "starved") if fault.starves else ("dead",)
    dead = max(last["state"].eq("dead").mean(), latest["state"].isin(useless).mean())
    return Result(float(dead), diverged, found.label, float(np.nan_to_num(gap)), str(found))


@cache
def twin_of(setting: Setting, seed: int, number: int) -> Result:
    """The healthy twin; faults with the same twin share it."""
    return train(setting, seed, replace(FAULTS[number], base=lambda s: s), healthy=True)


def matrix(results: pd.DataFrame, title: str) -> Table:
    """Fault × label over the runs in which the fault had an effect."""
    table = Table(title=title)
    for name in ("fault", "is", "runs", "effective", "right", "unknown", "named otherwise"):
        table.add_column(name, justify="left" if name in ("fault", "is", "named otherwise") else "right")
    for fault in FAULTS:
        rows = results[results["fault"] == fault.name]
        if rows.empty:
            continue
        hit = rows[rows["effect"]]
        wrong = Counter(hit.loc[~hit["right"], "label"])
        unknown = wrong.pop("unknown", 0)
        table.add_row(
            fault.name,
            fault.label,
            str(len(rows)),
            str(len(hit)),
            f"{int(hit['right'].sum())}",
            str(unknown),
            ", ".join(f"{label} {count}" for label, count in wrong.most_common()),
        )
    return table


def summary(results: pd.DataFrame) -> str:
    """Share of right labels with its interval, the healthy, the largest gap of a Shapley sum."""
    hit = results[results["effect"] & results["truth"].ne("none")]
    right = binomtest(int(hit["right"].sum()), max(1, len(hit)))
    interval = right.proportion_ci()
    unknown = int(hit["label"].eq("unknown").sum())
    healthy = [*results.loc[results["truth"].eq("none"), "label"], *results["twin_label"]]
    blamed = sum(label not in ("none", "unknown") for label in healthy)
    return (
        f"label right in {int(hit['right'].sum())} of {len(hit)} effective faults "
        f"({100 * right.statistic:.1f} %, 95 % interval {100 * interval.low:.1f} to "
        f"{100 * interval.high:.1f}), unknown in {unknown}, wrong in "
        f"{len(hit) - int(hit['right'].sum()) - unknown}; "
        f"healthy trainings blamed: {blamed} of {len(healthy)}, unknown in {healthy.count('unknown')}; "
        f"largest gap of a Shapley sum {results['gap'].max():.1e}"
    )


def main(seeds: int, settings: str, faults: str, processes: int, out: str) -> None:
    """Print the tables."""
    console = Console(highlight=False, width=120)
    groups = {"development": DEVELOPMENT, "others": OTHERS}
    for name, group in groups.items():
        if settings not in ("both", name):
            continue
        todo = [job for job in jobs(group, seeds) if faults in FAULTS[job[2]].name]
        with mp.get_context("fork").Pool(processes) as pool:
            results = pd.DataFrame(pool.imap_unordered(one, todo, chunksize=16))
        console.print(matrix(results, f"{name}: {len(results)} faults"))
        console.print(summary(results))
        if out:
            results.to_csv(f"{out}-{name}.csv", index=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--settings", choices=("both", "development", "others"), default="both")
    parser.add_argument("--faults", default="", help="only those whose name holds this")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", default="", help="write the single results to OUT-<settings>.csv")
    given = parser.parse_args()
    main(given.seeds, given.settings, given.faults, given.processes, given.out)
