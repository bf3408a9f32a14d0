"""A high learning rate kills units."""

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from experiments.claim import Claim, Sweep
from experiments.contrasts import contrast
from experiments.figures import doses
from experiments.verdicts import Part, Verdict, judge
from harness.compare.dose_curves import critical

SENTENCE = "If the learning rate is set too high, a large part of the network's ReLU units dies."
#: Optimizer → learning rates; the second is the ordinary one, the one before the last the one that is judged.
GRIDS = {
    "sgd": (0.01, 0.1, 0.3, 0.5, 1.0, 2.0),
    "momentum": (0.001, 0.01, 0.03, 0.1, 0.2, 0.4),
    "adam": (0.0001, 0.001, 0.003, 0.01, 0.03, 0.1),
}
NAMES = {"sgd": "SGD", "momentum": "SGD with momentum", "adam": "Adam"}


def decide(table: pd.DataFrame) -> Verdict:
    """For each optimizer, a high learning rate against the ordinary one."""

    def part(optimizer: str, outcome: str = "dead", **asked: Any) -> Part:
        _, low, *_, high, _ = GRIDS[optimizer]
        name = NAMES[optimizer] + (": accuracy" if outcome == "accuracy" else "")
        sides = ({"sweep": optimizer, "optim.lr": lr} for lr in (high, low))
        return contrast(table, outcome, *sides, label=f"{name}, lr {high:g} against {low:g}", **asked)

    return judge(
        *(part(optimizer, at_least=0.2) for optimizer in GRIDS),
        also=[part(optimizer, "accuracy", at_most=-0.05) for optimizer in GRIDS],
    )


def edge(table: pd.DataFrame) -> str:
    """The learning rate at which half of the units are dead, per optimizer."""
    found = []
    for optimizer, grid in GRIDS.items():
        (row,) = critical(table[table["sweep"] == optimizer], "optim.lr").to_dict("records")
        where = f"{row['critical']:.2g}, between {row['below']:g} and {row['above']:g}"
        if row["missing"]:
            where = f"is not known: {row['missing']}"
        elif np.isnan(row["critical"]):
            where = f"nowhere from {grid[0]:g} to {grid[-1]:g}: {row['note']}"
        elif not np.isnan(row["low"]):
            where += f" (over the seeds {row['low']:g} to {row['high']:g})"
        found.append(f"{NAMES[optimizer]} {where}")
    return (
        f"Where the edge is, the learning rate at which the mean dead share crosses 50 %: {'; '.join(found)}."
    )


CLAIM = Claim(
    name="high_learning_rate",
    sentence=SENTENCE,
    source="CS231n (“as much as 40 % of your network can be dead if the learning rate is set too high”)",
    metric="Dead share on the held-out probe after training, with test accuracy and diverged runs.",
    interest="20 points of dead share, half of what CS231n names.",
    design="Six constant learning rates for each of three optimizers, the same initial weights and batches "
    "within a seed. The learning rate judged was fixed beforehand: ten to thirty times the ordinary one, "
    "below the last of the grid.",
    sweeps=tuple(
        Sweep((f"optim={name}", f"optim.lr={','.join(map(str, grid))}"), name) for name, grid in GRIDS.items()
    ),
    decide=decide,
    beside=edge,
    figure=partial(
        doses, along="optim.lr", groups={NAMES[name]: {"sweep": name} for name in GRIDS}, title=SENTENCE
    ),
)
