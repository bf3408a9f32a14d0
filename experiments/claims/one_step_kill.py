"""The learning rate above which one gradient step kills a unit."""

from functools import partial

import numpy as np
import pandas as pd
import torch

from experiments.claim import Claim
from experiments.contrasts import level
from experiments.figures import doses
from experiments.verdicts import Verdict, judge

SENTENCE = (
    "One step kills a unit if, and only if, the learning rate exceeds a threshold that can be computed."
)
FACTORS = (0.5, 0.9, 0.99, 1.01, 1.1, 2.0)
UNITS = {"toy": 50, "small": 2000, "standard": 10_000, "full": 10_000}
SEEDS = {"toy": 2, "small": 12, "standard": 12, "full": 24}


def measure(budget: str) -> pd.DataFrame:
    """Random units, inputs and targets; one step of autograd's gradient at multiples of the threshold."""
    rows = []
    for seed in range(SEEDS[budget]):
        draw = torch.Generator().manual_seed(seed)
        count, size = UNITS[budget], 6
        w, x = (torch.randn(count, size, generator=draw, dtype=torch.float64) for _ in range(2))
        w = w * torch.sign((w * x).sum(1, keepdim=True))  # open on their input
        b = torch.zeros(count, 1, dtype=torch.float64)
        v = torch.rand(count, generator=draw, dtype=torch.float64) + 0.2
        z = (w * x).sum(1)
        y = v * z - torch.rand(count, generator=draw, dtype=torch.float64) - 0.01  # too high an output
        threshold = z / (v * (v * z - y) * (x.square().sum(1) + 1))
        for factor in FACTORS:
            weight, bias = w.clone().requires_grad_(), b.clone().requires_grad_()
            out = v * torch.relu((weight * x).sum(1) + bias[:, 0])
            (0.5 * (out - y).square()).sum().backward()
            assert weight.grad is not None
            assert bias.grad is not None
            lr = (factor * threshold)[:, None]
            after = ((weight - lr * weight.grad) * x).sum(1) + (bias - lr * bias.grad)[:, 0]
            rows.append((seed, factor, float((after <= 0).double().mean())))
    return pd.DataFrame(rows, columns=pd.Index(["seed", "factor", "dead_share"]))


def decide(table: pd.DataFrame) -> Verdict:
    """All units live just below the threshold, and are dead just above it."""
    return judge(
        level(table, "dead_share", {"factor": 0.99}, 0.5, label="1 % below the threshold", at_most=-0.49),
        level(table, "dead_share", {"factor": 1.01}, 0.5, label="1 % above the threshold", at_least=0.49),
    )


CLAIM = Claim(
    name="one_step_kill",
    sentence=SENTENCE,
    source="the loss ½(v·relu(z) - y)²: lr > z / (v (vz - y)(‖x‖² + 1))",
    metric="Share of random units that are closed on their input after one step of plain gradient descent.",
    interest="99 % of the units on the predicted side, 1 % on either side of the threshold.",
    design="Random weights, inputs, outgoing weights and targets below the output; autograd's gradient. "
    "‖x‖² + 1 in the threshold is why inputs off centre and high learning rates multiply.",
    measure=measure,
    decide=decide,
    figure=partial(
        doses,
        along="factor",
        outcomes=("dead_share",),
        overlay={"threshold": (np.array([0.5, 1, 1, 2.0]), np.array([0.0, 0, 1, 1]))},
        title=SENTENCE,
        log=False,
    ),
    kind="paper",
)
