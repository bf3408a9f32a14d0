"""Many negative inputs kill units."""

from functools import partial
from typing import Any

import pandas as pd

from experiments.claim import Claim, Sweep
from experiments.contrasts import contrast
from experiments.figures import arms
from experiments.verdicts import Part, Verdict, judge

SENTENCE = "Inputs that are mostly negative kill ReLU units."
DATA = {"[0, 1]": False, "standardised": True}


def decide(table: pd.DataFrame) -> Verdict:
    """Every input multiplied by -1 against itself."""

    def part(data: str, outcome: str, words: str, **asked: Any) -> Part:
        sides = ({"data.negate": negate, "data.standardise": DATA[data]} for negate in (True, False))
        return contrast(table, outcome, *sides, label=f"{data} negated: {words}", **asked)

    return judge(
        *(part(data, "dead", "after training", at_least=0.05) for data in DATA),
        also=[
            *(part(data, "born_dead", "before training", at_least=0.05) for data in DATA),
            *(part(data, "accuracy", "accuracy", at_most=-0.05) for data in DATA),
        ],
    )


CLAIM = Claim(
    name="negative_inputs",
    sentence=SENTENCE,
    source="textbook folklore",
    metric="Dead share on the held-out probe after training; before training, and test accuracy, beside it.",
    interest="5 points of dead share.",
    design="The same images, and the same multiplied by -1: in [-1, 0] all inputs are negative. Initial "
    "weights have a law that is symmetric about 0, so that nothing can change but by chance. What shifts "
    "the mean away from 0 is another claim, off_centre_inputs.",
    comments={
        "refuted": "A symmetric law of the weights does not know signs: what kills is a mean far from zero, "
        "on either side of it (claim off_centre_inputs).",
    },
    sweeps=(Sweep(("data.standardise=false,true", "data.negate=false,true")),),
    decide=decide,
    figure=partial(
        arms,
        arms={
            f"{name}{', negated' if negate else ''}": {"data.standardise": value, "data.negate": negate}
            for name, value in DATA.items()
            for negate in (False, True)
        },
        outcomes=("born_dead", "dead", "accuracy"),
        title=SENTENCE,
    ),
)
