"""The scale of the initialisation and the dead units."""

from functools import partial

import pandas as pd

from experiments.claim import Claim, Sweep
from experiments.contrasts import contrast
from experiments.figures import doses
from experiments.verdicts import Verdict, judge

SENTENCE = "Too large or too small initial weights make ReLU units start out dead."


def decide(table: pd.DataFrame) -> Verdict:
    """A tenth and ten times He's deviation, against it."""

    def part(gain: float, outcome: str, when: str):
        return contrast(
            table,
            outcome,
            {"init.gain": gain},
            {"init.gain": 1},
            label=f"{gain:g} × He's deviation, {when}",
            at_least=0.05,
        )

    return judge(
        part(0.1, "born_dead", "before training"),
        part(10, "born_dead", "before training"),
        also=[part(0.3, "dead", "after training"), part(3, "dead", "after training")],
    )


CLAIM = Claim(
    name="init_scale",
    sentence=SENTENCE,
    source="textbook folklore",
    metric="Dead share on the held-out probe before the first step; after training, and test accuracy, "
    "beside it.",
    interest="5 points of dead share.",
    design="He's normal initialisation with zero biases, its deviation multiplied by five factors; a seed "
    "draws the same weights up to the factor. At zero bias a factor cannot change the sign of any "
    "pre-activation, so that the dead set must be the same unit by unit: this is also a test of the "
    "measuring.",
    sweeps=(Sweep(("init.gain=0.1,0.3,1,3,10",)),),
    decide=decide,
    figure=partial(doses, along="init.gain", outcomes=("born_dead", "dead", "accuracy"), title=SENTENCE),
)
