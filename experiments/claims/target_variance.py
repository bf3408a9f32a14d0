"""Regression: targets of small variance, and momentum."""

import itertools
from functools import partial

import numpy as np
import pandas as pd
import torch

from experiments.claim import Claim
from experiments.contrasts import contrast, rows_of
from experiments.figures import doses
from experiments.verdicts import Part, Verdict, judge

SENTENCE = (
    "Units of a regression network die the more easily the smaller the targets' variance; momentum drives it."
)
SCALES = (0.001, 0.01, 0.1, 1.0)
INPUTS, FEATURES, WIDTH = 256, 8, 32
TEACHER, NOISE = "teacher", "noise"
HIDDEN = 16  # units of the teacher
RATES = (0.1, 0.15)
STEPS = {"toy": 5, "small": 400, "standard": 1000, "full": 2000}
SEEDS = {"toy": 2, "small": 128, "standard": 256, "full": 512}
FROM = 1000  # first seed: data that neither the first run (0 to 63) nor a rehearsal saw


def measure(budget: str) -> pd.DataFrame:
    """One hidden layer of ReLUs per seed, scale, momentum and kind of target; full-batch, as one stack."""
    cells = itertools.product((TEACHER, NOISE), RATES, (0.0, 0.9), SCALES)
    return pd.concat([_trained(*cell, budget) for cell in cells], ignore_index=True)


def _trained(targets: str, lr: float, momentum: float, scale: float, budget: str) -> pd.DataFrame:
    seeds = SEEDS[budget]
    draws = [torch.Generator().manual_seed(seed) for seed in range(FROM, FROM + seeds)]

    def drawn(*shape: int) -> torch.Tensor:
        return torch.stack([torch.randn(*shape, generator=draw) for draw in draws])

    x, y = drawn(INPUTS, FEATURES), drawn(INPUTS, 1)
    teacher = drawn(FEATURES, HIDDEN), drawn(1, HIDDEN), drawn(HIDDEN, 1)
    if targets == TEACHER:
        y = torch.relu(torch.baddbmm(teacher[1], x, teacher[0])) @ teacher[2]
    y = scale * (y - y.mean(1, keepdim=True)) / y.std(1, keepdim=True)
    first, last = drawn(FEATURES, WIDTH) * (2 / FEATURES) ** 0.5, drawn(WIDTH, 1) * (2 / WIDTH) ** 0.5
    w, b, v, c = (
        p.requires_grad_() for p in (first, torch.zeros(seeds, 1, WIDTH), last, torch.zeros(seeds, 1, 1))
    )
    optimizer = torch.optim.SGD([w, b, v, c], lr=lr, momentum=momentum)

    def errors() -> torch.Tensor:
        return (torch.baddbmm(c, torch.relu(torch.baddbmm(b, x, w)), v) - y).square().mean((1, 2))

    for _ in range(STEPS[budget]):
        optimizer.zero_grad()
        errors().sum().backward()
        optimizer.step()
    with torch.no_grad():
        dead = (torch.baddbmm(b, x, w) <= 0).all(1).float().mean(1)
        left = errors() / scale**2
    lost = ~left.isfinite()
    dead[lost], left[lost] = torch.nan, torch.nan
    values = {"seed": np.arange(FROM, FROM + seeds), "dead": dead.numpy(), "unexplained": left.numpy()}
    settings = {
        "targets": targets,
        "lr": lr,
        "momentum": momentum,
        "scale": scale,
        "diverged": lost.numpy().astype(float),
    }
    return pd.DataFrame(values).assign(**settings)


def decide(table: pd.DataFrame) -> Verdict:
    """Small against unit variance with momentum; momentum against none at small variance."""
    small, one = {"scale": SCALES[0]}, {"scale": SCALES[-1]}

    def variance(lr: float, momentum: float, targets: str = TEACHER) -> Part:
        arm = {"targets": targets, "lr": lr, "momentum": momentum}
        label = f"{_of(targets)}deviation 0.001 against 1, momentum {momentum:g}, lr {lr:g}"
        return contrast(table, "dead", arm | small, arm | one, label=label, at_least=0.05)

    def momenta(targets: str = TEACHER) -> Part:
        with_it, without = ({"targets": targets, "momentum": m, "lr": RATES[0]} | small for m in (0.9, 0.0))
        label = f"{_of(targets)}momentum 0.9 against none, lr {RATES[0]:g}"
        return contrast(table, "dead", with_it, without, label=label, at_least=0.05)

    return judge(
        *(variance(lr, 0.9) for lr in RATES),
        momenta(),
        also=[variance(RATES[0], 0.0), *(variance(lr, 0.9, NOISE) for lr in RATES), momenta(NOISE)],
    )


def _of(targets: str) -> str:
    return "" if targets == TEACHER else f"{targets} as targets: "


def learned(table: pd.DataFrame) -> str:
    """How much of the targets is learned, so that one sees that it can be."""
    arm = {"momentum": 0.9, "scale": SCALES[-1], "lr": RATES[0]}
    left = rows_of(table, arm).groupby("targets")["unexplained"].median()
    return (
        f"At deviation 1, with momentum and lr {RATES[0]:g}, the median training leaves {left[TEACHER]:.1%} "
        f"of the teacher's variance, and {left[NOISE]:.1%} of the noise's."
    )


CLAIM = Claim(
    name="target_variance",
    sentence=SENTENCE,
    source="Arnekvist et al. 2020, 2005.06195",
    metric="Dead share on the training inputs after training.",
    interest="5 points of dead share.",
    design="One hidden layer of 32 ReLUs, Gaussian inputs, full-batch gradient descent on the squared error; "
    f"targets of four deviations; without momentum and with 0.9, at two learning rates near the edge of "
    f"stability. The targets are those of a random network of the same kind with {HIDDEN} units; Gaussian "
    "noise as the target, which can only be learned by heart, goes along. The seeds were raised from 16 to "
    "64 after a first run, which was undecided. Changed again after a run on noise alone (mixed): the "
    f"teacher, and {SEEDS['small']} new seeds, from {FROM}.",
    measure=measure,
    decide=decide,
    beside=learned,
    figure=partial(
        doses,
        along="scale",
        groups={
            f"momentum {m:g}, lr {lr:g}": {"targets": TEACHER, "momentum": m, "lr": lr}
            for m in (0.0, 0.9)
            for lr in RATES
        },
        outcomes=("dead", "unexplained"),
        title=SENTENCE,
        log=True,
    ),
    kind="paper",
)
