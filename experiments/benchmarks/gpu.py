"""`python -m experiments.benchmarks.gpu`: what watching costs on a GPU, eagerly and compiled.

Rounds of steps of the bare and the watched network are interleaved in one process; each round is compared
with the bare round beside it: wall time on a GPU, CPU time of one thread elsewhere. Without a GPU the rows
are those of the CPU's compiler and of the host's share, and the table says so. A dated line is added to
`experiments/benchmarks/history/`.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from experiments.benchmarks.hooks import Step, mlp, stepper, stock_resnet18
from harness import Recorder

HISTORY = Path(__file__).parent / "history" / "gpu.jsonl"
CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
BIG = 4 if CUDA else 1  # times the batch that suits a CPU


def cnn() -> nn.Module:
    """Two convolutions with batch norm."""
    convolutions = [nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)]
    convolutions += [nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(1568, 10))


class Transformer(nn.Module):
    """Two encoder layers with ReLU."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(128, 4, 512, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(1))


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "MLP": (lambda: mlp(784, 512, 512, 512, 10), (128, 784), 8),
    "CNN, batch norm": (cnn, (32 * BIG, 1, 28, 28), 6),
    "transformer": (Transformer, (8 * BIG, 32, 128), 6),
    "ResNet-18": (stock_resnet18, (4 * BIG, 3, 32, 32), 3),
}
GOALS = {
    "eager": {"MLP": 1.12, "CNN, batch norm": 1.10, "transformer": 1.03, "ResNet-18": 1.06},
    "compiled": 1.10,
}


def clock() -> float:
    """Seconds: of the device and its host on a GPU, of this process's CPU elsewhere."""
    if CUDA:
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def spent(step: Step, steps: int) -> float:
    began = clock()
    for _ in range(steps):
        step()
    return clock() - began


def ratio(case: str, compiled: bool, rounds: int) -> tuple[float, float, str]:
    """Watched / bare, milliseconds of the bare step, and how compiled code is observed."""
    make, shape, steps = CASES[case]
    torch.manual_seed(0)
    torch.compiler.reset()
    bare = make().to(DEVICE)
    watched = copy.deepcopy(bare)
    calls = [torch.compile(model) if compiled else model for model in (bare, watched)]
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.01) for model in (bare, watched)]
    with Recorder(watched, optimizer=optimizers[1]) as recorder:
        runs = [
            stepper(calls[0], shape, lambda: None, optimizers[0], DEVICE),
            stepper(calls[1], shape, recorder.step, optimizers[1], DEVICE),
        ]
        for _ in range(20):  # past the forwards that are traced, and past the compiler
            for run in (runs[1], runs[0]):
                run()
        found, times = [], []
        for number in range(rounds):
            order = (0, 1) if number % 2 else (1, 0)
            seconds = {which: spent(runs[which], steps) for which in order}
            found.append(seconds[1] / seconds[0])
            times.append(1e3 * seconds[0] / steps)
        how = recorder.plan.compiled if compiled else ""
    return statistics.median(found), statistics.median(times), how


def _nothing(*_: Any) -> None:
    pass


def _hooks_gradient(module: nn.Module, args: Any, out: Tensor) -> None:
    out.register_hook(_nothing)


def host_share(rounds: int, sites: int = 16) -> tuple[float, float]:
    """Microseconds of Python for each site and step: a Recorder's, and those of two empty hooks.

    On the CPU and tensors of 16 values, so that there is little else; the empty hooks are those that
    watching a site takes at least, one on the module and one on the gradient.
    """
    layers = [layer for _ in range(sites) for layer in (nn.Linear(8, 8), nn.ReLU())]
    bare = nn.Sequential(*layers, nn.Linear(8, 10))
    hooked, watched = copy.deepcopy(bare), copy.deepcopy(bare)
    for module in hooked.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(_hooks_gradient)
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.01) for model in (bare, hooked, watched)]
    with Recorder(watched, optimizer=optimizers[2], census_every=None) as recorder:
        after = (_nothing, _nothing, recorder.step)
        runs = [
            stepper(model, (2, 8), done, optimizer)
            for model, done, optimizer in zip((bare, hooked, watched), after, optimizers, strict=True)
        ]
        found = []
        for number in range(rounds + 1):
            seconds = []
            for run in runs:
                began = time.process_time()
                for _ in range(60):
                    run()
                seconds.append((time.process_time() - began) / 60 / sites)
            if number:  # past the forwards that are traced
                found.append((1e6 * (seconds[2] - seconds[0]), 1e6 * (seconds[1] - seconds[0])))
    return statistics.median(one for one, _ in found), statistics.median(two for _, two in found)


def main(rounds: int = 15, cases: tuple[str, ...] = tuple(CASES)) -> dict[str, float]:
    """Print the table, the worst row first; returns the median ratios."""
    torch.set_num_threads(1)
    logging.getLogger("torch").setLevel(logging.ERROR)
    where = torch.cuda.get_device_name() if CUDA else f"no GPU: {platform.processor() or 'CPU'}, one thread"
    rows = []
    for kind in ("eager", "compiled"):
        for case in cases:
            rows.append((kind, case, *ratio(case, kind == "compiled", rounds)))
    table = Table(title=f"A watched step / the bare one (median of {rounds} rounds; {where})")
    for name in ("network", "", "bare ms", "watched / bare", "goal", "compiled code is"):
        table.add_column(name)
    for kind, case, value, bare, how in sorted(rows, key=lambda row: -row[2]):
        goal: Any = GOALS[kind]
        goal = goal[case] if isinstance(goal, dict) else goal
        table.add_row(
            case, kind, f"{bare:.2f}", f"{value:.3f}", f"{goal:.2f}", how if kind == "compiled" else ""
        )
    Console(highlight=False, width=112).print(table)
    ours, empty = host_share(rounds)
    print(f"Python for each site and step: {ours:.1f} µs, {ours / empty:.2f} of two empty hooks' (goal 2.0)")
    medians = {f"{kind}: {case}": round(value, 3) for kind, case, value, _, _ in rows}
    medians["Python of a site / of two empty hooks"] = round(ours / empty, 3)
    HISTORY.parent.mkdir(exist_ok=True)
    with HISTORY.open("a") as file:
        line = {"date": f"{date.today()}", "where": where, "torch": torch.__version__, "ratios": medians}
        file.write(json.dumps(line) + "\n")
    return medians


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    given = parser.parse_args()
    main(given.rounds, tuple(given.cases))
