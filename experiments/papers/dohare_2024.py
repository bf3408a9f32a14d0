"""Dohare et al. 2024: dead units while task after task of permuted MNIST is learned online."""

from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from experiments.contrasts import contrast
from experiments.images import images
from experiments.paper import Row, share, word_of
from experiments.threads import one_thread
from experiments.verdicts import judge

LR, PROBE, CLASSES = 0.01, 2000, 10
TASKS, WIDTH, SEEDS = 15, 100, 6
FULL = {"tasks": 800, "width": 2000, "seeds": 1}


def measure(
    root: Path, tasks: int = TASKS, width: int = WIDTH, seeds: int = SEEDS, per_task: int = 0
) -> pd.DataFrame:
    """Dead share on held-out images after every task; accuracy of the task's stream."""
    x, y, x_test, _ = images("mnist", root, train=per_task, test=PROBE)
    x, x_test = x.flatten(1), x_test.flatten(1)
    found = []
    with one_thread(), torch.no_grad():
        for seed in range(seeds):
            draw = torch.Generator().manual_seed(seed)
            network = Network([x.shape[1], width, width, width, CLASSES], draw)
            found.append((seed, 0, network.dead(x_test), float("nan")))
            for task in range(1, tasks + 1):
                pixels = torch.randperm(x.shape[1], generator=draw)
                order = torch.randperm(len(x), generator=draw)
                right = sum(network.learn(x[k][pixels], int(y[k])) for k in order.tolist())
                found.append((seed, task, network.dead(x_test[:, pixels]), right / len(x)))
    return pd.DataFrame(found, columns=pd.Index(["seed", "task", "dead_share", "accuracy"]))


class Network:
    """A ReLU MLP that learns one example at a time by plain SGD on the cross entropy.

    Written out, since a step of one example costs autograd and an optimizer ten times the arithmetic.
    """

    def __init__(self, sizes: list[int], draw: torch.Generator) -> None:
        shapes = list(zip(sizes[1:], sizes[:-1], strict=True))
        self.weights = [torch.empty(shape) for shape in shapes]
        for weight in self.weights:  # Kaiming's uniform law
            weight.uniform_(-1, 1, generator=draw).mul_((6 / weight.shape[1]) ** 0.5)
        self.biases = [torch.zeros(shape[0]) for shape in shapes]

    def learn(self, x: Tensor, label: int) -> bool:
        """One step on x (features,); whether the prediction before it was right."""
        inputs = [x]
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            inputs.append(torch.addmv(bias, weight, inputs[-1]).relu_())
        output = torch.addmv(self.biases[-1], self.weights[-1], inputs[-1])
        gradient = output.softmax(0)
        gradient[label] -= 1
        for k in range(len(self.weights) - 1, -1, -1):
            below = torch.mv(self.weights[k].t(), gradient).mul_(inputs[k] > 0) if k else gradient
            self.weights[k].addr_(gradient, inputs[k], alpha=-LR)
            self.biases[k].sub_(gradient, alpha=LR)
            gradient = below
        return int(output.argmax()) == label

    def dead(self, x: Tensor) -> float:
        """Share of the hidden units that are closed on all of x (n, features)."""
        closed = []
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = torch.addmm(bias, x, weight.t()).relu_()
            closed.append((x == 0).all(0))
        return float(torch.cat(closed).float().mean())


def decide(table: pd.DataFrame) -> str:
    """More dead units after the last task than after the first."""
    last = int(table["task"].max())
    part = contrast(table, "dead_share", {"task": last}, {"task": 1}, label="growth", at_least=0.01)
    return word_of(judge(part))


def tell(table: pd.DataFrame) -> str:
    last = int(table["task"].max())
    parts = [f"after task {task}: {share(table, 'dead_share', task=task)}" for task in (0, 1, last)]
    accuracy = [f"{share(table, 'accuracy', task=task)}" for task in (1, last)]
    return f"dead {'; '.join(parts)}. Online accuracy {accuracy[0]}, then {accuracy[1]}"


SOURCE = "Dohare et al. 2024, Nature 632:768, online permuted MNIST"
THEIRS = "up to 25 % of the units dead after 800 tasks, at step size 0.01"
SETTING = (
    "Plain SGD at 0.01 on one image at a time, each of MNIST's 60,000 once per task, in a new order "
    "of pixels "
    f"each time; He's uniform initialisation, zero biases; dead on {PROBE:,} held-out images."
)
ROWS = (
    Row(
        name="dohare_2024",
        source=SOURCE,
        read="source",
        theirs=THEIRS,
        setting=f"{SETTING} 3 × {WIDTH} units, {TASKS} tasks. Asked: a point more of dead units after "
        "the last "
        "task than after the first.",
        scaled=f"3 × {WIDTH} in place of 3 × 2,000 units, {TASKS} in place of 800 tasks.",
        measure=measure,
        tell=tell,
        decide=decide,
    ),
    Row(
        name="dohare_2024_full",
        source=SOURCE,
        read="source",
        theirs=THEIRS,
        setting=f"{SETTING} 3 × 2,000 units, 800 tasks.",
        measure=partial(measure, **FULL),
        tell=tell,
        decide=decide,
        heavy="days on a CPU",
    ),
)
