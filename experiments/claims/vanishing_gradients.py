"""Sigmoid's and tanh's gradients vanish with depth, ReLU's do not."""

from functools import partial
from typing import Any

import pandas as pd

from experiments.claim import Claim, Sweep
from experiments.contrasts import trend
from experiments.figures import doses
from experiments.readings import first_to_last_gradient
from experiments.units import Unit
from experiments.verdicts import Part, Verdict, judge

SENTENCE = "Sigmoid's and tanh's gradients vanish with depth; ReLU's do not."
DECADES = Unit("decades per layer")
GROUPS = ("sigmoid", "tanh", "relu")


def decide(table: pd.DataFrame) -> Verdict:
    """The slope of log10(first layer's / last layer's gradient) along depth, for each activation."""

    def part(name: str, label: str, **asked: Any) -> Part:
        arm = {"activation.name": name}
        return trend(table, "gradient_ratio", "model.depth", arm, label=label, unit=DECADES, per=1, **asked)

    return judge(
        part("sigmoid", "sigmoid's fall", at_most=-0.1),
        part("tanh", "tanh's fall", at_most=-0.1),
        part("relu", "ReLU's constancy", within=0.1),
    )


CLAIM = Claim(
    name="vanishing_gradients",
    sentence=SENTENCE,
    source="every textbook chapter on ReLU",
    metric="Slope along depth of log10 of the first layer's root-mean-square gradient over the last "
    "layer's, w.r.t. pre-activations, at the first step.",
    interest="A tenth of a decade per layer: a factor of ten over ten layers.",
    design="MLPs of 2 to 16 hidden layers of 64 units on standardised inputs; Glorot's initialisation for "
    "sigmoid and tanh, He's for ReLU, as each was proposed. Nothing is trained but one step.",
    sweeps=tuple(
        Sweep(
            (
                "model.depth=2,4,8,16",
                f"activation={names}",
                f"init={init}",
                "data.standardise=true",
                "train.max_steps=1",
            )
        )
        for names, init in (("sigmoid,tanh", "xavier_normal"), ("relu", "kaiming_normal"))
    ),
    comments={
        "mixed": "With Glorot's initialisation tanh loses so little per layer that sixteen layers are "
        "no obstacle; the sentence was coined when weights were drawn otherwise.",
    },
    read=first_to_last_gradient,
    decide=decide,
    figure=partial(
        doses,
        along="model.depth",
        groups={name: {"activation.name": name} for name in GROUPS},
        outcomes=("gradient_ratio",),
        title=SENTENCE,
        log=False,
    ),
)
