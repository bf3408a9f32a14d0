"""Dead units cost capacity and accuracy."""

from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from experiments.budgets import SEEDS, one_run
from experiments.claim import Claim
from experiments.contrasts import Arm, contrast
from experiments.figures import arms
from experiments.threads import one_thread
from experiments.verdicts import Part, Verdict, judge
from harness.training.data import Dataset, load
from harness.training.initialisation import initialise
from harness.training.models import build
from harness.training.randomness import stream

SENTENCE = "Dead units cost the network capacity, and with it accuracy."
WHOLE = "whole (width 64)"
#: Arm → overrides, share of each layer's units that is killed, and when, as a share of the training.
ARMS: dict[str, tuple[tuple[str, ...], float, float]] = {
    WHOLE: ((), 0.0, 0.0),
    "half killed at the start": ((), 1 / 2, 0.0),
    "half killed half-way": ((), 1 / 2, 0.5),
    "half missing (width 32)": (("model.width=32",), 0.0, 0.0),
    "83 % killed at the start": ((), 53 / 64, 0.0),
    "83 % missing (width 11)": (("model.width=11",), 0.0, 0.0),
    "bias -0.5": (("bias.offset=-0.5",), 0.0, 0.0),
    "bias -1": (("bias.offset=-1",), 0.0, 0.0),
}


def measure(budget: str, data_set: str) -> pd.DataFrame:
    """Every arm and seed, trained with the same batches: test accuracy and dead share on the test inputs."""
    rows = []
    with one_thread():
        for seed in range(SEEDS[budget]):
            for arm, (words, share, when) in ARMS.items():
                spec = one_run(words, budget, data_set, seed)
                data = load(spec, torch.device("cpu"), torch.float32)
                model = build(spec, data.shape, data.classes)
                initialise(model, spec)
                steps = spec.train.epochs * data.steps_per_epoch
                steps = min(steps, spec.train.max_steps or steps)
                train(model, data, steps, spec.optim.lr, share, int(when * steps), seed)
                rows.append((seed, arm, *tested(model, data)))
    columns = ["seed", "arm", "n", "accuracy", "dead"]
    return pd.DataFrame(rows, columns=pd.Index(columns))


def train(model: nn.Module, data: Dataset, steps: int, lr: float, share: float, when: int, seed: int) -> None:
    """Plain SGD; before step `when` a random share of the units of each layer is killed."""
    parameters = list(model.parameters())
    for step in range(steps):
        if share and step == when:
            kill(hidden(model), share, stream(seed, "killed"))
        x, y = data.batch(*divmod(step, data.steps_per_epoch))
        gradients = torch.autograd.grad(functional.cross_entropy(model(x), y), parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.sub_(gradient, alpha=lr)


def hidden(model: nn.Module) -> list[nn.Linear]:
    """The layers that feed an activation: all linear ones but the head."""
    return [module for module in model.modules() if isinstance(module, nn.Linear)][:-1]


@torch.no_grad()
def kill(layers: list[nn.Linear], share: float, draw: torch.Generator) -> None:
    """No weights and a bias of -1: closed on every input, without a gradient, for ever."""
    for layer in layers:
        units = torch.randperm(layer.out_features, generator=draw)[: round(share * layer.out_features)]
        layer.weight[units] = 0.0
        layer.bias[units] = -1.0


@torch.no_grad()
def tested(model: nn.Module, data: Dataset) -> tuple[int, float, float]:
    """Test inputs, accuracy and dead share on them."""
    counts: dict[str, Tensor] = {}
    right = n = 0
    for x, y in data.test_batches():
        right += int((model(x).argmax(1) == y).sum())
        n += len(y)
        h = x.flatten(1)
        for k, layer in enumerate(hidden(model)):
            h = layer(h).relu()
            counts[str(k)] = counts.get(str(k), torch.zeros(h.shape[1])) + (h > 0).sum(0)
    return n, right / n, float((torch.cat(list(counts.values())) == 0).float().mean())


def decide(table: pd.DataFrame) -> Verdict:
    """Killed units against none; beside it missing ones, and what a bias does that kills as many."""

    def part(name: str, against: str = WHOLE, **asked: Any) -> Part:
        sides: tuple[Arm, Arm] = ({"arm": name}, {"arm": against})
        label = name if against == WHOLE else f"{name} against {against}"
        return contrast(table, "accuracy", *sides, label=label, **(asked or {"at_most": -0.02}))

    return judge(
        *(part(name) for name in ARMS if "killed" in name),
        also=[
            part("half killed at the start", "half missing (width 32)", within=0.02),
            part("83 % killed at the start", "83 % missing (width 11)", within=0.02),
            *(part(name) for name in ARMS if "missing" in name),
            part("bias -0.5", "half killed at the start", at_most=-0.02),
            part("bias -1", "83 % killed at the start", at_most=-0.02),
        ],
    )


CLAIM = Claim(
    name="dead_units_cost",
    sentence=SENTENCE,
    source="textbook folklore",
    metric="Test accuracy after training, with the dead share on the test inputs.",
    interest="2 points of test accuracy.",
    design="A random half, and 53, of the 64 units of each layer are killed outright, before the "
    "first step or "
    "half-way: no weights, and a bias of -1, so that nothing else changes. Controls: as many units fewer and "
    "none dead, which is what a lack of capacity alone costs; and a bias of -0.5 or -1, which kills about as "
    "many and cripples the living too. Changed after a first run in which units were killed by the "
    "bias alone, "
    "so that the two could not be told apart. SGD at the default rate, the same batches for every arm.",
    measure=measure,
    data_sets=("digits", "mnist", "fashion_mnist"),
    decide=decide,
    figure=partial(
        arms, arms={name: {"arm": name} for name in ARMS}, outcomes=("accuracy", "dead"), title=SENTENCE
    ),
)
