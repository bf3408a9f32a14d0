"""`python -m experiments.benchmarks.confirmation`: does an experiment name the right factor?

Runs of our own with a fault that their configuration expresses; `harness-tools confirm` on each. The factor
that is at fault should remove at least 80 % of the deaths.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from harness import open_runs
from harness.config import compose
from harness.sweeps.job import run_job
from harness.trials.confirm import confirm

NETWORKS = {"3x128": (), "2x48": ("model.depth=2", "model.width=48", "train.batch_size=64")}
CENTRED = ("centred inputs", "standardised inputs")
HIGH = ("learning rate / 10", "warm-up")
#: Fault → overrides, the factors that are right.
FAULTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "bias -1.5": (("bias.offset=-1.5",), ("zero bias",)),
    "bias -3, Adam": (("bias.offset=-3", "optim=adam", "optim.lr=0.001"), ("zero bias",)),
    "weights' mean -1.5": (("init.mean=-1.5",), ("He weights",)),
    "weights' mean -3, Adam": (("init.mean=-3", "optim=adam", "optim.lr=0.001"), ("He weights",)),
    "inputs +3": (("data.shift=3", "optim.lr=0.05"), CENTRED),
    "inputs -8, Adam": (("data.shift=-8", "optim=adam", "optim.lr=0.001"), CENTRED),
    "lr 1, SGD": (("optim.lr=1.5",), HIGH),
    "lr 2, SGD, centred": (("optim.lr=2", "data.standardise=true"), HIGH),
    "lr 0.03, Adam": (("optim=adam", "optim.lr=0.03"), HIGH),
    "lr 0.1, Adam, centred": (("optim=adam", "optim.lr=0.1", "data.standardise=true"), HIGH),
    "decay 0.3": (("optim.weight_decay=0.3", "optim.lr=0.1"), ("no decay",)),
}


def main(seeds: int, folder: Path) -> None:
    """Print the table."""
    rows = []
    for fault, (overrides, right) in FAULTS.items():
        for network, shape in NETWORKS.items():
            for seed in range(seeds):
                words = [*overrides, *shape, f"seed={seed}", "train.epochs=8", f"output={folder}"]
                outcome = run_job(compose([*words, "record.tensorboard=false"]))
                row = {"fault": fault, "network": network, "seed": seed}
                try:
                    found = confirm(open_runs(outcome.path)[0])
                except ValueError:  # too few are dead: the fault had no effect
                    rows.append(row | {"effect": False})
                    continue
                arms = found.arms.set_index("factor")
                removed = max(float(arms["removed"][name]) for name in right)
                named = found.arms.iloc[0]["factor"]
                rows.append(
                    row | {"effect": True, "removed": removed, "named": named, "right": named in right}
                )
    table = Table(title="Confirmation by training again")
    for name in (
        "fault",
        "runs",
        "effective",
        "right factor removes (lowest)",
        "at least 80 %",
        "named first",
    ):
        table.add_column(name, justify="left" if name == "fault" else "right")
    results = pd.DataFrame(rows)
    for fault, group in results.groupby("fault", sort=False):
        hit = group[group["effect"]]
        enough = int((hit["removed"] >= 0.8).sum()) if len(hit) else 0
        lowest = f"{100 * hit['removed'].min():.0f} %" if len(hit) else ""
        first = f"{int(hit['right'].sum())} of {len(hit)}" if len(hit) else ""
        table.add_row(str(fault), str(len(group)), str(len(hit)), lowest, f"{enough} of {len(hit)}", first)
    console = Console(highlight=False, width=120)
    console.print(table)
    hit = results[results["effect"]]
    console.print(
        f"the right factor removes at least 80 % of the deaths in {int((hit['removed'] >= 0.8).sum())} of "
        f"{len(hit)} effective faults; it is named first in {int(hit['right'].sum())}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        main(given.seeds, Path(temporary))
