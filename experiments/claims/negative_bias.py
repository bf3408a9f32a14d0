"""A large negative bias kills units."""

from functools import partial

import pandas as pd

from experiments.claim import Claim, Sweep
from experiments.contrasts import contrast
from experiments.figures import doses
from experiments.verdicts import Verdict, judge

SENTENCE = (
    "A large negative bias puts a ReLU unit into its dead region, from which training does not bring it back."
)


def decide(table: pd.DataFrame) -> Verdict:
    """Bias -1 against 0, before and after training; the smaller doses go along."""

    def part(bias: float, outcome: str, label: str):
        return contrast(table, outcome, {"bias.offset": bias}, {"bias.offset": 0}, label=label, at_least=0.2)

    return judge(
        part(-1, "born_dead", "bias -1, before training"),
        part(-1, "dead", "bias -1, after training"),
        also=[
            part(-0.25, "dead", "bias -0.25, after training"),
            part(-0.5, "dead", "bias -0.5, after training"),
            part(-2, "dead", "bias -2, after training"),
            contrast(
                table,
                "accuracy",
                {"bias.offset": -1},
                {"bias.offset": 0},
                label="bias -1: accuracy",
                at_most=-0.05,
            ),
        ],
    )


CLAIM = Claim(
    name="negative_bias",
    sentence=SENTENCE,
    source="CS231n, and every textbook chapter on ReLU",
    metric="Dead share on the held-out probe before the first step and after training, with test accuracy.",
    interest="20 points of dead share.",
    design="The offset is added to every bias that feeds an activation; all else is equal, within a seed. "
    "Five doses.",
    sweeps=(Sweep(("bias.offset=0,-0.25,-0.5,-1,-2",)),),
    decide=decide,
    figure=partial(doses, along="bias.offset", outcomes=("born_dead", "dead", "accuracy"), title=SENTENCE),
)
