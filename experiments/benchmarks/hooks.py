"""`python -m experiments.benchmarks.hooks`: what watching every unit at every step costs.

Each variant trains its own copy of the network; rounds of steps are interleaved in one process, on one
thread, in CPU time, and each round is compared with the bare round beside it. The rivals are written the way
people write them. Recorder: defaults, every step, every unit, activations and gradients.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import cycle, pairwise
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from experiments.benchmarks.rivals import VARIANTS
from harness.activations.gates import Gate
from harness.kernels.statistics import empty, update, update_gradient

Step = Callable[[], None]
FAR = 2**28  # bytes that no cache holds
GOALS = {
    "nn.Sequential": 1.15,
    "attributes act": 1.15,
    "attributes relu": 1.15,
    "one shared ReLU": 1.15,
    "F.relu": 1.20,
    "transformer, 8 tokens": 1.10,
    "ResNet-18 on 8 × 8": 1.06,
    "tiny net": 1.15,
    "MLP": 1.03,
    "small CNN": 1.05,
    "ResNet-18": 1.02,
}


def mlp(*sizes: int) -> nn.Sequential:
    """Linear layers with a ReLU module between them."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def cnn() -> nn.Sequential:
    """The small CNN of `model=cnn`."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(3136, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def resnet18() -> nn.Module:
    """torchvision's, for 32 × 32 inputs."""
    from torchvision.models import resnet18

    model = resnet18(num_classes=10)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.add_module("maxpool", nn.Identity())
    return model


class Spelled(nn.Module):
    """The same three layers of 64 units, with the activations written in one of the usual ways."""

    def __init__(self, spelling: str) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
        self.spelling = spelling
        if spelling == "act":
            self.act1, self.act2 = nn.ReLU(), nn.ReLU()
        elif spelling == "relu":
            self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
        elif spelling == "shared":
            self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        first: Any = F.relu
        second: Any = F.relu
        if self.spelling == "act":
            first, second = self.act1, self.act2
        elif self.spelling == "relu":
            first, second = self.relu1, self.relu2
        elif self.spelling == "shared":
            first = second = self.relu
        return self.three(second(self.two(first(self.one(x)))))


class Transformer(nn.Module):
    """Two encoder layers with ReLU, on few tokens: launch-bound."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(1))


class Ensemble(nn.Module):
    """Eight networks at once, whose units lie on two axes."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((16, 32), (32, 32), (32, 10))
        self.weights = nn.ParameterList(torch.randn(8, *size) / size[0] ** 0.5 for size in sizes)
        self.biases = nn.ParameterList(torch.zeros(8, 1, size[1]) for size in sizes)

    def forward(self, x: Tensor) -> Tensor:
        x = x.expand(8, *x.shape)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = torch.relu(torch.baddbmm(bias, x, weight))
        return torch.baddbmm(self.biases[-1], x, self.weights[-1]).mean(0)


class Gated(nn.Module):
    """A gated linear unit, whose gate is half of a layer's outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.both, self.out = nn.Linear(32, 128), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.both(x).chunk(2, -1)
        return self.out(F.relu(gate) * up)


def prelu() -> nn.Sequential:
    """Two PReLUs, whose gates are learned."""
    return nn.Sequential(nn.Linear(16, 64), nn.PReLU(), nn.Linear(64, 64), nn.PReLU(), nn.Linear(64, 10))


def stock_resnet18() -> nn.Module:
    """Torchvision's own."""
    from torchvision.models import resnet18

    return resnet18(num_classes=10)


Shape = tuple[Any, ...]  # the first: a batch size, or a range of them, of which each step takes the next

CASES: dict[str, tuple[Callable[[], nn.Module], Shape, int]] = {
    "nn.Sequential": (lambda: mlp(64, 64, 64, 10), (16, 64), 150),
    "attributes act": (lambda: Spelled("act"), (16, 64), 150),
    "attributes relu": (lambda: Spelled("relu"), (16, 64), 150),
    "one shared ReLU": (lambda: Spelled("shared"), (16, 64), 150),
    "F.relu": (lambda: Spelled("function"), (16, 64), 150),
    "transformer, 8 tokens": (Transformer, (16, 8, 32), 40),
    "ResNet-18 on 8 × 8": (stock_resnet18, (2, 3, 8, 8), 6),
    "MLP": (lambda: mlp(784, 512, 512, 512, 10), (128, 784), 12),
    "small CNN": (cnn, (64, 1, 28, 28), 4),
    "ResNet-18": (resnet18, (64, 3, 32, 32), 1),
    "tiny net": (lambda: mlp(64, 32, 32, 10), (32, 64), 150),
    "an ensemble, baddbmm": (Ensemble, (32, 16), 60),
    "new batch sizes": (lambda: mlp(16, 64, 64, 10), (range(8, 208), 16), 60),
    "a gate by chunk": (Gated, (32, 32), 60),
    "PReLU": (prelu, (32, 16), 60),
}


# --- measuring -------------------------------------------------------------------------------------


def stepper(
    call: Callable[[Tensor], Tensor],
    shape: Shape,
    after: Callable[[], None],
    optimizer: Any,
    device: str = "cpu",
) -> Step:
    """One training step on fixed inputs; `call` is the model, or what was compiled of it."""
    sizes = shape[0] if isinstance(shape[0], range) else range(shape[0], shape[0] + 1)
    x = torch.randn(sizes[-1], *shape[1:], device=device)
    batches = cycle([(x[:n], torch.randint(10, (n,), device=device)) for n in sizes])

    def step() -> None:
        x, y = next(batches)
        F.cross_entropy(call(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        after()

    return step


def ratios(case: str, rounds: int) -> dict[str, list[float]]:
    """Per variant and round: CPU time / CPU time of the bare round beside it."""
    make, shape, steps = CASES[case]
    torch.manual_seed(0)
    original = make()
    runs: dict[str, Step] = {}
    with ExitStack() as stack:
        for name, attach in VARIANTS.items():
            model = copy.deepcopy(original)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
            after = stack.enter_context(attach(model, optimizer))
            runs[name] = stepper(model, shape, after, optimizer)
            for _ in range(40):  # past the forwards that are traced at first
                runs[name]()
        found: dict[str, list[float]] = {name: [] for name in VARIANTS}
        for number in range(rounds):
            spent = {}
            order = list(runs) if number % 2 else list(runs)[::-1]
            for name in order:
                began = time.process_time()
                for _ in range(steps):
                    runs[name]()
                spent[name] = time.process_time() - began
            for name, seconds in spent.items():
                found[name].append(seconds / spent["bare"])
    return found


def bandwidth(shape: tuple[int, ...], fresh: bool, repeats: int = 40) -> dict[str, float]:
    """Read bandwidth of our kernels / that of `x.sum()`, on one tensor again and again or on fresh ones."""
    size = 4 * torch.Size(shape).numel()
    tensors = [torch.randn(shape) for _ in range(max(2, FAR // size) if fresh else 1)]
    axis, statistics_ = 1 - len(shape), empty(shape[1])
    calls: dict[str, Callable[[Tensor], Any]] = {
        "sum": lambda x: x.sum(),
        "observe": lambda x: update(statistics_, x, Gate(low=0.0), axis),
        "gradient": lambda x: update_gradient(statistics_, x, axis),
    }
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            began = time.perf_counter()
            for x in tensors:
                call(x)
            spent[name].append(time.perf_counter() - began)
    return {name: min(spent["sum"]) / min(seconds) for name, seconds in spent.items()}


def main(rounds: int = 21, cases: tuple[str, ...] = tuple(CASES)) -> dict[str, dict[str, float]]:
    """Print the tables; returns the median ratios."""
    torch.set_num_threads(1)
    console = Console(highlight=False, width=112)
    table = Table(title=f"CPU time of a step / of the bare step (median of {rounds} rounds, one thread)")
    for name in ("network", *list(VARIANTS)[1:], "goal"):
        table.add_column(name, justify="left" if name == "network" else "right")
    medians = {}
    for case in cases:
        medians[case] = {name: statistics.median(values) for name, values in ratios(case, rounds).items()}
    for case, found in sorted(medians.items(), key=lambda row: -row[1]["Recorder"]):  # the worst first
        cells = [f"{found[name]:.3f}" for name in list(VARIANTS)[1:]]
        table.add_row(case, *cells, f"{GOALS[case]:.2f}" if case in GOALS else "–")
    console.print(table)
    speeds = Table(title="Read bandwidth of a kernel / of x.sum(): from memory (from cache)")
    for name in ("tensor", "MB", "activations", "gradients"):
        speeds.add_column(name, justify="right")
    for shape in ((2048, 512), (128, 4096), (64, 32, 784), (64, 64, 1024), (64, 512, 16)):
        fresh, cached = bandwidth(shape, fresh=True), bandwidth(shape, fresh=False)
        size = 4 * torch.Size(shape).numel() / 2**20
        cells = [f"{fresh[name]:.2f} ({cached[name]:.2f})" for name in ("observe", "gradient")]
        speeds.add_row(str(shape), f"{size:.1f}", *cells)
    console.print(speeds)
    return medians


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--cases", nargs="*", default=list(CASES))
    given = parser.parse_args()
    main(given.rounds, tuple(given.cases))
