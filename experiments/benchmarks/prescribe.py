"""`python -m experiments.benchmarks.prescribe`: does the cure that was tried and recommended work?

Runs of ours with a fault that their configuration expresses, each beside its healthy twin. The recommended
command is trained as it is printed, and so are four cures that are always the same. With `--root`, six of the
faults on images: a CNN on MNIST, and a ResNet-20 on CIFAR-10 or what part of it lies in that folder.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

import harness
from experiments.benchmarks.cure_scores import EFFECT, Score, cured, print_results
from experiments.budgets import source
from harness.config import compose
from harness.config.command import merged
from harness.sweeps.job import run_job

NETWORKS = {
    "3x128": ("train.epochs=12",),
    "2x48": ("model.depth=2", "model.width=48", "train.batch_size=64", "train.epochs=12"),
}
OPTIMIZERS = {"momentum": ("optim=momentum", "optim.lr=0.02"), "adam": ("optim=adam", "optim.lr=0.0015")}
RATES = {"momentum": 0.02, "adam": 0.0015}
#: Fault → overrides of the faulty run for an optimizer; the twin has none of them.
FAULTS: dict[str, Any] = {
    "healthy": lambda o: (),
    "bias -1.5": lambda o: ("bias.offset=-1.5",),
    "bias -3": lambda o: ("bias.offset=-3",),
    "weights' mean -1.5": lambda o: ("init.mean=-1.5",),
    "weights' mean -3": lambda o: ("init.mean=-3",),
    "gain 10": lambda o: ("init.gain=10",),
    "weights and bias": lambda o: ("init.mean=-1", "bias.offset=-1.5"),
    "inputs +8": lambda o: ("data.shift=8",),
    "inputs negated, -3": lambda o: ("data.negate=true", "data.shift=-3"),
    "lr x 15": lambda o: (f"optim.lr={15 * RATES[o]}",),
    "lr x 60": lambda o: (f"optim.lr={60 * RATES[o]}",),
    "lr x 15, inputs +2": lambda o: (f"optim.lr={15 * RATES[o]}", "data.shift=2"),
    "decay": lambda o: (f"optim.weight_decay={0.1 if o == 'momentum' else 0.05}",),
    "labels wrong": lambda o: ("data.label_noise=0.9", f"optim.lr={4 * RATES[o]}"),
    "new labels every epoch": lambda o: ("data.reshuffle_labels_every=1", f"optim.lr={4 * RATES[o]}"),
    "pixels permuted": lambda o: ("data.permute_inputs_every=1", f"optim.lr={4 * RATES[o]}"),
}
ALWAYS: dict[str, Any] = {
    "lr / 10": lambda spec: (f"optim.lr={spec.optim.lr / 10:.6g}",),
    "leaky ReLU": lambda spec: ("activation=leaky_relu",),
    "batch norm": lambda spec: ("model.norm=batch",),
    "ReDo": lambda spec: ("remedy=redo", "remedy.every=20"),
}
ON_IMAGES = ("bias -3", "weights' mean -3", "gain 10", "inputs +8", "lr x 60", "labels wrong")


def score(words: tuple[str, ...] | list[str], folder: Path) -> Score:
    """Accuracy, dead share, whether it diverged, of a run."""
    outcome = run_job(compose(merged(words, ("record.tensorboard=false", f"output={folder}"))))
    run = harness.open_runs(outcome.path)[0]
    if run.state == "diverged":
        return Score(0.0, 1.0, diverged=True)
    return Score(float(run.final["accuracy"]), float(run.final["dead_fraction"]), diverged=False)


def image_networks(root: Path) -> dict[str, tuple[str, ...]]:
    """A CNN on MNIST and a ResNet-20 on CIFAR-10, small enough for a CPU."""
    shortly = ("train.batch_size=50", "data.probe_size=200")
    mnist = (*source("mnist", root), "data.subset=4000", "train.epochs=2", *shortly)
    return {
        "CNN": ("model=cnn", "model.channels=8", "model.width=64", *mnist),
        "ResNet-20": (
            "model=resnet",
            *source("cifar10", root),
            "data.subset=1000",
            "train.epochs=3",
            *shortly,
        ),
    }


def one(
    fault: str, network: str, base: tuple[str, ...], optimizer: str, seed: int, budget: float, folder: Path
) -> dict[str, Any]:
    """A faulty run, its twin, its prescription and the cures that are always the same."""
    base = (*base, *OPTIMIZERS[optimizer], f"seed={seed}")
    words = merged(base, FAULTS[fault](optimizer))
    ill, twin = score(words, folder), score(base, folder)
    row: dict[str, Any] = {"fault": fault, "network": network, "optimizer": optimizer, "seed": seed}
    row |= {"ill": ill.accuracy, "ill_dead": ill.dead, "twin": twin.accuracy, "twin_dead": twin.dead}
    row["effect"] = ill.dead - twin.dead >= EFFECT or (ill.diverged and not twin.diverged)
    if not row["effect"] and fault != "healthy":
        return row
    spec = compose(merged(words, ("record.tensorboard=false", f"output={folder}")))
    run = harness.open_runs(run_job(spec).path)[0]
    found = harness.prescribe(run, budget=budget)
    row |= {"label": found.label, "cure": found.cure, "time": found.seconds / run.status["seconds"]}
    if fault == "healthy":
        return row
    after = score(shlex.split(found.command)[1:], folder) if found.command else ill
    row |= {"after": after.accuracy, "after_dead": after.dead, "cured": cured(after, ill, twin)}
    for name, always in ALWAYS.items() if network in NETWORKS else ():
        row[name] = cured(score(merged(words, always(spec)), folder), ill, twin)
    return row


def main(seeds: int, faults: str, out: str, root: str, budget: float) -> None:
    """Print the table."""
    networks = image_networks(Path(root).absolute()) if root else NETWORKS
    optimizers = ("momentum",) if root else tuple(OPTIMIZERS)
    rows = []
    for fault, network, optimizer, seed in product(FAULTS, networks, optimizers, range(seeds)):
        if faults in fault and (not root or fault in ON_IMAGES):
            with tempfile.TemporaryDirectory() as folder:
                what = fault, network, networks[network], optimizer, 10 * seed, budget, Path(folder)
                rows.append(one(*what))
                print(rows[-1], flush=True)
    results = pd.DataFrame(rows)
    if out:
        results.to_csv(out, index=False)
    by = ("network", "fault") if root else ("fault",)
    print_results(results, by, tuple(ALWAYS) if not root else ())
    hit = results[results["effect"] & results["fault"].ne("healthy")]
    if len(hit):
        print(f"time: median {statistics.median(hit['time']):.2f} times the run's own")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--faults", default="", help="only those whose name holds this")
    parser.add_argument("--out", default="", help="write the single results to this file")
    parser.add_argument("--root", default="", help="folder of data sets: six faults on images instead")
    parser.add_argument("--budget", type=float, default=2.0, help="in times of a run's own on every core")
    given = parser.parse_args()
    main(given.seeds, given.faults, given.out, given.root, given.budget)
