"""Narrow deep networks collapse while they train; an asymmetric initialisation helps."""

import itertools
from functools import partial

import numpy as np
import pandas as pd
import torch

from experiments.claim import Claim
from experiments.contrasts import contrast, level
from experiments.figures import arms
from experiments.verdicts import Verdict, judge

SENTENCE = (
    "Trained on |x|, over 90 % of He-initialised networks of width 2 and 10 layers collapse to a constant; "
    "randomised asymmetric initialisation makes it far fewer."
)
WIDTH, LAYERS, POINTS_OF_X, LR = 2, 10, 60, 2e-3
NETWORKS = {"toy": 4, "small": 25, "standard": 50, "full": 100}
STEPS = {"toy": 20, "small": 2500, "standard": 2500, "full": 5000}
SEEDS = {"toy": 2, "small": 12, "standard": 20, "full": 20}
CONSTANT = 1e-3  # deviation of the output over the inputs below which it is one


def he(count: int, fan_in: int, fan_out: int, draw: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """N(0, 2 / fan_in), zero biases."""
    weight = torch.randn(count, fan_out, fan_in, generator=draw) * (2 / fan_in) ** 0.5
    return weight, torch.zeros(count, fan_out, 1)


def rai(count: int, fan_in: int, fan_out: int, draw: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and bias of a unit from N(0, .6007² / fan_in), but one of them from Beta(2, 1) (Lu et al.)."""
    both = torch.randn(count, fan_out, fan_in + 1, generator=draw) * 0.6007 / fan_in**0.5
    place = torch.randint(fan_in + 1, (count, fan_out, 1), generator=draw)
    beta = torch.rand(count, fan_out, 1, generator=draw).sqrt()  # Beta(2, 1) by its inverse
    both.scatter_(2, place, beta)
    return both[..., :fan_in].contiguous(), both[..., fan_in:].contiguous()


def measure(budget: str) -> pd.DataFrame:
    """All networks of all seeds as one stack, full-batch Adam."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return pd.concat([_trained(init, budget) for init in ("he", "rai")], ignore_index=True)
    finally:
        torch.set_num_threads(threads)


def _trained(name: str, budget: str) -> pd.DataFrame:
    seeds, each = SEEDS[budget], NETWORKS[budget]
    sizes = [1, *[WIDTH] * (LAYERS - 1), 1]
    layers: list[list[torch.Tensor]] = [[], []]
    for fan_in, fan_out in itertools.pairwise(sizes):
        draws = [
            torch.Generator().manual_seed(1000 * fan_in + 10 * len(layers[0]) + 100_000 * s)
            for s in range(seeds)
        ]
        parts = [(he if name == "he" else rai)(each, fan_in, fan_out, draw) for draw in draws]
        for store, values in zip(layers, zip(*parts, strict=True), strict=True):
            store.append(torch.cat(values).requires_grad_())
    weights, biases = layers
    optimizer = torch.optim.Adam([*weights, *biases], lr=LR)
    x = torch.linspace(-(3**0.5), 3**0.5, POINTS_OF_X)[None, None]
    target = x.abs()

    def output() -> torch.Tensor:
        h = x.expand(seeds * each, -1, -1)
        for k, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            h = torch.baddbmm(bias, weight, h)
            h = torch.relu(h) if k + 1 < len(weights) else h
        return h

    for _ in range(STEPS[budget]):
        optimizer.zero_grad()
        (output() - target).square().mean((1, 2)).sum().backward()
        optimizer.step()
    with torch.no_grad():
        out = output()
        collapsed = (out.std((1, 2)) < CONSTANT).float().reshape(seeds, each).mean(1)
        loss = (out - target).square().mean((1, 2)).reshape(seeds, each).mean(1)
    return pd.DataFrame(
        {
            "init": name,
            "seed": np.arange(seeds),
            "collapsed_share": collapsed.numpy(),
            "loss": loss.numpy(),
            "networks": each,
            "n": POINTS_OF_X,
        }
    )


def decide(table: pd.DataFrame) -> Verdict:
    """He's share against 90 %, and RAI's against He's."""
    return judge(
        level(table, "collapsed_share", {"init": "he"}, 0.9, label="He, less 90 %", at_least=0.0),
        contrast(
            table, "collapsed_share", {"init": "rai"}, {"init": "he"}, label="RAI against He", at_most=-0.2
        ),
        also=[level(table, "collapsed_share", {"init": "rai"}, 0.0, label="RAI", at_most=-0.01)],
    )


CLAIM = Claim(
    name="collapse_in_training",
    sentence=SENTENCE,
    source="Lu et al. 2019, 1903.06733",
    metric="Share of networks whose output is constant on the inputs (deviation below 0.001) after training.",
    interest="90 % for He; 20 points fewer for RAI.",
    design="Full-batch Adam, learning rate 0.002, 2,500 steps on 60 points of |x| in [-√3, √3]; 25 "
    "networks per seed and initialisation.",
    measure=measure,
    decide=decide,
    figure=partial(
        arms,
        arms={"He": {"init": "he"}, "RAI": {"init": "rai"}},
        outcomes=("collapsed_share", "loss"),
        title="Collapse of narrow deep networks on |x|",
    ),
    kind="paper",
)
