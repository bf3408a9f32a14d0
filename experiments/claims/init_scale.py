"""The scale of the initialisation and the dead units."""

from functools import partial

import pandas as pd

from experiments.claim import Claim, Sweep
from experiments.contrasts import contrast
from experiments.figures import doses
from experiments.verdicts import Verdict, judge

SENTENCE = "Too large or too small initial weights kill ReLU units: they start out dead, or die in training."


def decide(table: pd.DataFrame) -> Verdict:
    """A third and three times He's deviation against it, before training and after."""

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
        *(part(gain, "born_dead", "before training") for gain in (0.3, 3)),
        *(part(gain, "dead", "after training") for gain in (0.3, 3)),
        also=[
            *(part(gain, "born_dead", "before training") for gain in (0.1, 10)),
            *(part(gain, "dead", "after training") for gain in (0.1, 10)),
        ],
    )


CLAIM = Claim(
    name="init_scale",
    sentence=SENTENCE,
    source="textbook folklore",
    metric="Dead share on the held-out probe before the first step, and after training; test accuracy "
    "beside it.",
    interest="5 points of dead share.",
    design="He's normal initialisation with zero biases, its deviation multiplied by five factors; a seed "
    "draws the same weights up to the factor. At zero bias a factor cannot change the sign of any "
    "pre-activation, so that the dead set before training must be the same unit by unit: that half of the "
    "sentence is false by arithmetic, and a test of the measuring. What the scale does to training is asked "
    "apart, since a large one makes the first steps too long. Changed after a first run that asked only of "
    "the start; the extremes 0.1 and 10 go along.",
    sweeps=(Sweep(("init.gain=0.1,0.3,1,3,10",)),),
    decide=decide,
    figure=partial(doses, along="init.gain", outcomes=("born_dead", "dead", "accuracy"), title=SENTENCE),
)
