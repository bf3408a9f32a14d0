"""UvA deep learning tutorial 3: dead units of two fresh networks on Fashion-MNIST."""

from pathlib import Path

import pandas as pd
import torch
from torch import nn

import harness
from experiments.images import images
from experiments.paper import AGREES, DIFFERS, Row

NETWORKS = {
    "512-256-256-128": (512, 256, 256, 128),
    "5 × 256, 5 × 128": (256,) * 5 + (128,) * 5,
}
THEIRS = {
    "512-256-256-128": (0, 0, 3, 10),
    "5 × 256, 5 × 128": (0, 0, 7, 27, 89, 60, 58, 61, 72, 56),
}
SEED, TOLERANCE = 42, 2  # units; sums in another order can move a pre-activation that is nearly 0


def measure(root: Path) -> pd.DataFrame:
    """Dead units by layer, before training, on all training images in [-1, 1]."""
    x = 2 * images("fashion_mnist", root).x.flatten(1) - 1
    found = []
    for name, widths in NETWORKS.items():
        torch.manual_seed(SEED)
        sizes = (x.shape[1], *widths)
        layers = [m for k in range(len(widths)) for m in (nn.Linear(sizes[k], sizes[k + 1]), nn.ReLU())]
        report = harness.scan(nn.Sequential(*layers, nn.Linear(widths[-1], 10)), x.split(5000))
        dead = (report.units["state"] == "dead").groupby(report.units["site"], sort=False).sum()
        found += [(SEED, name, layer, int(units)) for layer, units in enumerate(dead, 1)]
    return pd.DataFrame(found, columns=pd.Index(["seed", "network", "layer", "dead"]))


def by_network(table: pd.DataFrame) -> dict[str, list[int]]:
    return {name: table.loc[table["network"] == name, "dead"].tolist() for name in NETWORKS}


def decide(table: pd.DataFrame) -> str:
    """Whether no layer differs by more than the tolerance."""
    pairs = [
        pair for name, dead in by_network(table).items() for pair in zip(dead, THEIRS[name], strict=True)
    ]
    return AGREES if all(abs(a - b) <= TOLERANCE for a, b in pairs) else DIFFERS


ROWS = (
    Row(
        name="uva_tutorial_3",
        source="UvA deep learning tutorial 3 (activation functions), printed output of the notebook",
        read="source",
        theirs="dead by layer " + " and ".join(str(list(dead)) for dead in THEIRS.values()),
        setting=f"Networks {' and '.join(NETWORKS)} on Fashion-MNIST's 60,000 training images scaled to "
        f"[-1, 1]; `nn.Linear` as it initialises itself after `torch.manual_seed({SEED})`; `harness.scan`. "
        f"Agreement: at most {TOLERANCE} units in each layer.",
        measure=measure,
        tell=lambda table: " and ".join(map(str, by_network(table).values())),
        decide=decide,
    ),
)
