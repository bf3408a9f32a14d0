"""`python -m experiments.benchmarks.sweeps`: wall time of whole sweeps, start-up, storage and all.

Each sweep is a command in a process of its own, as a user would type it: with our launcher, with our workers
but without stacking, and with Hydra's joblib launcher on two processes. What our workers save without
stacking is overhead; the rest comes from training runs of one shape as one stack.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from harness.config import plan
from harness.store.folder import RunFolder
from harness.sweeps.cohorts import divide
from harness.training.stacked import train_cohort


@dataclass(frozen=True)
class Case:
    """A sweep: its overrides, and how many times less wall time than joblib is the aim."""

    overrides: tuple[str, ...]
    goal: float


SMALL = ("model.width=32", "model.depth=2", "optim.lr=0.01,0.03,0.1,0.3", "seed=range(16)")
OTHERS = ("optim.lr=0.01,0.03,0.1,0.3", "seed=range(16)", "train.epochs=3")
IMAGES = ("train.epochs=1", "train.batch_size=128", "data.subset=10000")
CASES = {
    "64 runs, digits, 64-32-32-10, 3 epochs": Case((*SMALL, "train.epochs=3"), 7),
    "64 runs, digits, 64-32-32-10, 30 epochs": Case((*SMALL, "train.epochs=30"), 9),
    "64 runs, MNIST, 784-128-128-10, 1 epoch of 10,000": Case(
        ("model.width=128", "model.depth=2", *IMAGES, "optim.lr=0.01,0.03,0.1,0.3", "seed=range(16)"), 2.5
    ),
    "8 runs, MNIST, 784-512-512-10, 1 epoch of 10,000": Case(
        ("model.width=512", "model.depth=2", *IMAGES, "optim.lr=0.01,0.1", "seed=range(4)"), 1
    ),
    "64 runs, digits, RNN of 32, 3 epochs": Case((*OTHERS, "model=rnn", "model.width=32"), 2),
    "64 runs, digits, CNN 4-8-32, 3 epochs": Case(
        (*OTHERS, "model=cnn", "model.channels=4", "model.width=32"), 2
    ),
    "64 runs, digits, transformer of 32, 3 epochs": Case((*OTHERS, "model=transformer", "model.width=32"), 1),
    "4 runs, MNIST, small CNN, 1 epoch of 10,000": Case(
        ("model=cnn", *IMAGES, "optim.lr=0.01,0.1", "seed=range(2)"), 1
    ),
}
WAYS = {
    "ours": [],
    "ours, not stacked": ["hydra.launcher.stack=false"],
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
}


def data_of(overrides: tuple[str, ...], root: str | None, folder: Path) -> list[str]:
    """MNIST where it is, or made-up images of its sizes."""
    if "data.subset=10000" not in overrides:
        return []
    if root is not None:
        return ["data=mnist", f"data.root={root}"]
    file = folder / "images.npz"
    if not file.exists():
        draw = np.random.default_rng(0)
        labels = draw.integers(0, 10, 12_000)
        images = (draw.random((12_000, 1, 28, 28)) * 128 + 12 * labels[:, None, None, None]).astype(np.uint8)
        np.savez(
            file,
            x_train=images[:10_000],
            y_train=labels[:10_000],
            x_test=images[10_000:],
            y_test=labels[10_000:],
        )
    return ["data=arrays", f"data.path={file}"]


def seconds(overrides: list[str], output: Path) -> float:
    """Wall time of the sweep, in a process of its own, from nothing."""
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-m", "harness", "-m", *overrides, f"output={output}"]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    spent = time.monotonic() - began
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    return spent


def recording(folder: Path, epochs: int = 40) -> tuple[float, float]:
    """What the full record takes of a stacked step of the first case: of a step, of all with their censuses.

    Two cohorts, one recorded and one not, are trained in turns of a step, and each step is compared with its
    neighbour: one after the other, they would meet the shared machine in different moods.
    """
    ways = ("record=standard", "record=off")
    own = ("record.tensorboard=false", f"train.epochs={epochs}", f"output={folder}")
    tasks = [divide(plan([*SMALL, *own, way], multirun=True))[0] for way in ways]
    turns = [threading.Semaphore(1), threading.Semaphore(0)]
    spent: list[list[float]] = [[], []]
    torch.set_num_threads(1)

    def train(me: int) -> None:
        began: list[float] = []

        def tick(_: int) -> None:
            if began:
                spent[me].append(time.perf_counter() - began.pop())
            turns[1 - me].release()
            turns[me].acquire()
            began.append(time.perf_counter())

        turns[me].acquire()
        try:
            folders = [RunFolder(folder / f"{me}-{k}") for k in range(len(tasks[me].specs))]
            train_cohort(tasks[me].specs, folders, folder / f"keep-{me}", tick)
        finally:
            turns[1 - me].release(1_000_000)  # the other one goes on alone

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(train, (0, 1)))
    count = min(map(len, spent))
    recorded, bare = (np.array(times[:count]) for times in spent)
    step = float(np.median(recorded - bare) / np.median(recorded))
    return step, float(1 - bare.sum() / recorded.sum())


def main(cases: list[str], repeats: int, root: str | None) -> None:
    """Print the table."""
    console = Console(highlight=False, width=130)
    table = Table(title=f"Wall time of a sweep in seconds, 2 processes (median of {repeats})")
    for name in ("sweep", *WAYS, "joblib / ours", "goal", "less overhead", "stacking"):
        table.add_column(name, justify="left" if name == "sweep" else "right")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for case in cases:
            overrides = [*CASES[case].overrides, *data_of(CASES[case].overrides, root, folder)]
            found: dict[str, list[float]] = {way: [] for way in WAYS}
            for _ in range(repeats):
                for way, more in WAYS.items():
                    found[way].append(seconds([*overrides, *more], folder / "runs"))
            ours, plain, joblib = (statistics.median(times) for times in found.values())
            cells = (f"{ours:.1f}", f"{plain:.1f}", f"{joblib:.1f}", f"{joblib / ours:.1f}×")
            parts = f"{joblib / plain:.1f}×", f"{plain / ours:.1f}×"
            table.add_row(case, *cells, f"{CASES[case].goal:g}×", *parts)
        console.print(table)
        shares = [recording(folder / f"record-{repeat}") for repeat in range(repeats)]
        step, every = (100 * statistics.median(found) for found in zip(*shares, strict=True))
        console.print(
            f"Recording takes {step:.1f} % of a stacked step (digits, 32 members); {every:.1f} % with the "
            "censuses of all members, on a probe too, every 50 steps."
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="*", default=list(CASES), help="parts of their names")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--root", help="folder with torchvision's MNIST; without it, made-up images")
    given = parser.parse_args()
    main([case for case in CASES if any(part in case for part in given.cases)], given.repeats, given.root)
