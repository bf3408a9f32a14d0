"""How fast batches come: ours against torchvision's way, side by side in one process on one thread.

python -m experiments.benchmarks.data [--root FOLDER] [--repeats 7] [--batches 20]
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from harness.config import compose
from harness.training.data import Dataset
from harness.training.sources import RawData

BATCH = 128
GOALS = {"MNIST": 50, "CIFAR-10, crop and flip": 15}  # times as fast
MORE = 10  # batches of ours per batch of theirs: comparable times on the clock


def main(
    root: str = "~/.cache/dying-relu-harness", repeats: int = 7, batches: int = 20, size: int = 50_000
) -> dict[str, list[float]]:
    """Measure and print.

    Args:
        root: where real data sets may lie; without them, random ones are made up.
        repeats: alternations between the two.
        batches: of 128 inputs, taken by torchvision's loader in each.
        size: inputs of a made-up data set.

    Returns:
        Our speed over theirs, for each repeat of each case.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    table = Table(title=f"Batches of {BATCH}, samples/s on one thread (median of {repeats})")
    for heading in ("case", "inputs", "DataLoader", "ours", "ratio", "lowest", "goal"):
        table.add_column(heading, justify="left" if heading in ("case", "inputs") else "right")
    ratios: dict[str, list[float]] = {}
    try:
        for case, family in zip(GOALS, (datasets.MNIST, datasets.CIFAR10), strict=True):
            dataset, origin = _torchvision(family, Path(root).expanduser(), size)
            theirs, ours = _alternate(dataset, repeats, batches)
            ratios[case] = [a / b for a, b in zip(ours, theirs, strict=True)]
            speeds = (f"{statistics.median(s):,.0f}" for s in (theirs, ours))
            lowest, median = min(ratios[case]), statistics.median(ratios[case])
            table.add_row(case, origin, *speeds, f"{median:.0f}x", f"{lowest:.0f}x", f"{GOALS[case]}x")
    finally:
        torch.set_num_threads(threads)
    table.caption = (
        "Made-up inputs are random bytes of the same sizes: they cost both sides what real ones do."
    )
    Console().print(table)
    return ratios


def _torchvision(family: Any, root: Path, size: int) -> tuple[Any, str]:
    """The data set with the usual transforms: the real one if it lies there, else made up."""
    images = family is datasets.CIFAR10
    augment = [transforms.RandomCrop(32, 4), transforms.RandomHorizontalFlip()] if images else []
    moments = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)) if images else ((0.1307,), (0.3081,))
    transform = transforms.Compose([*augment, transforms.ToTensor(), transforms.Normalize(*moments)])
    try:
        return family(root, transform=transform), "real"
    except RuntimeError:  # not there
        dataset: Any = family.__new__(family)
        datasets.VisionDataset.__init__(dataset, root, transform=transform)
        pixels = torch.randint(0, 256, (size, 32, 32, 3) if images else (size, 28, 28), dtype=torch.uint8)
        labels = torch.randint(0, 10, (size,))
        dataset.data, dataset.targets = (pixels.numpy(), labels.tolist()) if images else (pixels, labels)
        return dataset, "made up"


def _alternate(dataset: Any, repeats: int, batches: int) -> tuple[list[float], list[float]]:
    """Samples per second of the loader and of ours, turn about; the start of an epoch is not timed."""
    loader = DataLoader(dataset, batch_size=BATCH, shuffle=True, drop_last=True, num_workers=0)
    endless = itertools.chain.from_iterable(itertools.repeat(loader))
    own = _ours(dataset)
    theirs, ours = [], []
    for _ in range(repeats):
        theirs.append(_speed(endless.__next__, batches))
        ours.append(_speed(own.__next__, batches * MORE))
    return theirs, ours


def _ours(dataset: Any) -> Iterator[Any]:
    pixels, y = torch.as_tensor(dataset.data), torch.as_tensor(dataset.targets)
    images = pixels.ndim == 4
    x = pixels.permute(0, 3, 1, 2).contiguous() if images else pixels.unsqueeze(1)
    options = compose([f"data={'cifar10' if images else 'mnist'}", f"data.augment={images}"]).data
    raw = RawData(x, y, x[:1], y[:1], classes=10, divisor=255.0)
    own = Dataset(raw, options, 0, BATCH, device=torch.device("cpu"), dtype=torch.float32)
    for epoch in itertools.count():
        for step in range(own.steps_per_epoch):
            yield own.batch(epoch, step)


def _speed(draw: Callable[[], Any], batches: int) -> float:
    draw()
    start = time.perf_counter()
    for _ in range(batches):
        draw()
    return batches * BATCH / (time.perf_counter() - start)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Batches per second, ours against torchvision's way.")
    parser.add_argument("--root", default="~/.cache/dying-relu-harness", help="where real data sets may lie")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batches", type=int, default=20)
    asked = parser.parse_args()
    main(asked.root, asked.repeats, asked.batches)
