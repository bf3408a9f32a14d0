"""Deeper networks have more dead units."""

from functools import partial

import pandas as pd

from experiments.claim import Claim, Sweep
from experiments.contrasts import contrast
from experiments.figures import doses
from experiments.verdicts import Verdict, judge

SENTENCE = "The deeper a ReLU network, the larger the share of its units that is dead."


def decide(table: pd.DataFrame) -> Verdict:
    """16 hidden layers against 1, before and after training."""
    sides = {"model.depth": 16}, {"model.depth": 1}
    return judge(
        contrast(table, "born_dead", *sides, label="16 layers against 1, before training", at_least=0.05),
        contrast(table, "dead", *sides, label="16 layers against 1, after training", at_least=0.05),
        also=[
            contrast(
                table,
                "dead",
                {"model.depth": 8},
                {"model.depth": 1},
                label="8 against 1, after",
                at_least=0.05,
            ),
            contrast(table, "accuracy", *sides, label="16 against 1: accuracy", at_most=-0.02),
        ],
    )


CLAIM = Claim(
    name="depth",
    sentence=SENTENCE,
    source="textbook folklore; Lu et al. 2019 (1903.06733) of whole networks",
    metric="Dead share of all hidden units on the held-out probe, before and after training, with test "
    "accuracy.",
    interest="5 points of dead share.",
    design="MLPs with 1 to 16 hidden layers of 64 units, He's initialisation, zero biases, SGD at 0.1. "
    "Networks of different depth share a seed's batches, and the weights of the layers that both have.",
    sweeps=(Sweep(("model.depth=1,2,4,8,16",)),),
    decide=decide,
    figure=partial(doses, along="model.depth", outcomes=("born_dead", "dead", "accuracy"), title=SENTENCE),
)
