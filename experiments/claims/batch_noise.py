"""Learning rate × batch size: does the noise of small batches kill?"""

from functools import partial

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from experiments.budgets import SEEDS, one_run
from experiments.claim import EVERY_SET, SEEN, Claim
from experiments.claims.dead_units_cost import tested
from experiments.contrasts import Arm, contrast
from experiments.figures import doses
from experiments.threads import one_thread
from experiments.verdicts import Part, Verdict, judge
from harness.training.data import Dataset, load
from harness.training.initialisation import initialise
from harness.training.models import build
from harness.training.randomness import stream

SENTENCE = (
    "The noise of stochastic gradients kills units: small batches and high learning rates let more die."
)
RATES, SMALL, LARGE, STEPS = (0.05, 0.2, 0.4), 8, 128, 300
INJECTED = f"batch {LARGE}, noise of {SMALL}"
#: Arm → its batch size.
ARMS = {f"batch {size}": size for size in (SMALL, 32, LARGE)} | {INJECTED: LARGE}


def measure(budget: str, data_set: str) -> pd.DataFrame:
    """Every seed, rate and arm, trained by plain SGD from the same weights: dead share on the test inputs."""
    rows = []
    steps = 3 if budget == "toy" else STEPS
    with one_thread():
        for seed in range(SEEDS[budget]):
            for arm, size in ARMS.items():
                spec = one_run((f"train.batch_size={size}",), budget, data_set, seed)
                data = load(spec, torch.device("cpu"), torch.float32)
                for lr in RATES:
                    model = build(spec, data.shape, data.classes)
                    initialise(model, spec)
                    finite = train(model, data, steps, lr, seed, noisy=arm == INJECTED)
                    n, accuracy, dead = tested(model, data) if finite else (None, None, None)
                    rows.append((seed, lr, arm, float(not finite), n, accuracy, dead))
    columns = ["seed", "lr", "arm", "diverged", "n", "accuracy", "dead"]
    return pd.DataFrame(rows, columns=pd.Index(columns)).astype(dict.fromkeys(columns[3:], float))


def train(model: nn.Module, data: Dataset, steps: int, lr: float, seed: int, *, noisy: bool) -> bool:
    """Plain SGD, with injected noise or without; whether all parameters are finite at the end."""
    parameters = dict(model.named_parameters())
    for step in range(steps):
        x, y = data.batch(*divmod(step, data.steps_per_epoch))
        if noisy:
            found = noised(model, x, y, len(y) // SMALL, stream(seed, "noise", step))
        else:
            loss = functional.cross_entropy(model(x), y)
            found = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.sub_(found[name], alpha=lr)
    return all(bool(parameter.isfinite().all()) for parameter in parameters.values())


def noised(model: nn.Module, x: Tensor, y: Tensor, parts: int, draw: torch.Generator) -> dict[str, Tensor]:
    """The gradient of a batch, with the variance that the gradient of one of its parts has.

    The parts' gradients have a variance v, and their mean v / parts; independent Gaussian noise of
    v (1 - 1 / parts) is added to every number. Where no part has a gradient, as in a dead unit, there is no
    noise.

    Args:
        model: with parameters, and nothing that it draws or counts in a forward pass.
        x: inputs (B, …).
        y: labels (B,).
        parts: into how many equal parts the batch is divided.
        draw: of the noise.
    """

    def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(torch.func.functional_call(model, parameters, (x,)), y)

    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    split = x.unflatten(0, (parts, -1)), y.unflatten(0, (parts, -1))
    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, *split)
    size = (1 - 1 / parts) ** 0.5
    return {
        name: g.mean(0) + size * g.std(0) * torch.randn(g.shape[1:], generator=draw)
        for name, g in each.items()
    }


def decide(table: pd.DataFrame) -> Verdict:
    """The smallest batch, and the largest with its noise, against the largest, at the higher rates."""

    def part(name: str, lr: float) -> Part:
        sides: tuple[Arm, Arm] = ({"arm": name, "lr": lr}, {"arm": f"batch {LARGE}", "lr": lr})
        label = f"{name}, against {LARGE} alone, lr {lr:g}"
        return contrast(table, "dead", *sides, label=label, at_least=0.05)

    small = f"batch {SMALL}"
    high, low = ({"arm": small, "lr": lr} for lr in (RATES[-1], RATES[0]))
    label = f"{small}, lr {RATES[-1]:g} against {RATES[0]:g}"
    return judge(
        *(part(name, lr) for name in (small, INJECTED) for lr in RATES[1:]),
        also=[
            *(part(name, RATES[0]) for name in (small, INJECTED)),
            contrast(table, "dead", high, low, label=label, at_least=0.05),
        ],
    )


CLAIM = Claim(
    name="batch_noise",
    sentence=SENTENCE,
    source="Dufort-Labbé et al. 2024, 2403.07688",
    metric="Dead share on the held-out inputs after the same number of steps.",
    interest="5 points of dead share.",
    design=f"Plain SGD, three learning rates × three batch sizes, {STEPS} steps each, the same initial "
    f"weights within a seed; and batches of {LARGE} with Gaussian noise added to the gradient, by which "
    f"every number in it has the variance that it has in batches of {SMALL}. Equal steps, not equal epochs: "
    "small batches see fewer inputs here, so that they differ in that too, and the injected noise differs in "
    "nothing else. Changed after a first run on three data sets without it (mixed on two, supported on one).",
    measure=measure,
    data_sets=EVERY_SET,
    looked_at=SEEN,
    decide=decide,
    figure=partial(doses, along="lr", groups={name: {"arm": name} for name in ARMS}, title=SENTENCE),
    kind="paper",
)
