"""An initialisation with a negative mean kills units."""

from functools import partial
from typing import Any

import pandas as pd

from experiments.claim import Claim, Sweep
from experiments.contrasts import contrast
from experiments.figures import doses
from experiments.readings import layers
from experiments.verdicts import Part, Verdict, judge

SENTENCE = "Initial weights that are negative on average push outputs below zero and leave ReLU units dead."
DATA = {"inputs in [0, 1]": False, "standardised inputs": True}


def decide(table: pd.DataFrame) -> Verdict:
    """A mean of -0.3 / √fan_in against 0, on both kinds of inputs."""

    def part(data: str, outcome: str, label: str, **asked: Any) -> Part:
        sides = ({"init.mean": mean, "data.standardise": DATA[data]} for mean in (-0.3, 0))
        return contrast(table, outcome, *sides, label=f"{data}, {label}", **asked)

    return judge(
        *(part(data, "dead", "after training", at_least=0.1) for data in DATA),
        also=[
            *(part(data, "born_dead", "before training", at_least=0.1) for data in DATA),
            *(part(data, "born_dead_1", "first layer, before", at_least=0.1) for data in DATA),
            *(part(data, "accuracy", "accuracy", at_most=-0.05) for data in DATA),
        ],
    )


CLAIM = Claim(
    name="negative_initial_mean",
    sentence=SENTENCE,
    source="textbook folklore",
    metric="Dead share on the held-out probe after training; before training, by layer, and test accuracy "
    "beside it.",
    interest="10 points of dead share.",
    design="He's normal initialisation plus a mean of 0, -0.1, -0.3 (judged) or -1 / √fan_in, on inputs "
    "that are never negative and on standardised ones. On the latter the first layer's pre-activations keep "
    "mean zero, so that only the layers behind, whose inputs are never negative either, can tell the "
    "difference.",
    sweeps=(Sweep(("init.mean=0,-0.1,-0.3,-1", "data.standardise=false,true")),),
    read=layers,
    decide=decide,
    figure=partial(
        doses,
        along="init.mean",
        groups={name: {"data.standardise": value} for name, value in DATA.items()},
        outcomes=("dead", "born_dead_1", "accuracy"),
        title=SENTENCE,
    ),
)
