"""Inputs far from zero mean kill units; standardising prevents it."""

from functools import partial
from typing import Any

import pandas as pd

from experiments.claim import Claim, Sweep
from experiments.contrasts import Arm, contrast
from experiments.figures import arms
from experiments.verdicts import Part, Verdict, judge

SENTENCE = "Inputs with a mean far from zero kill ReLU units; standardising the inputs prevents it."
STANDARDISED: Arm = {"data.standardise": True}


def raw(shift: float) -> Arm:
    """Inputs in [0, 1], shifted."""
    return {"data.standardise": False, "data.shift": shift}


def decide(table: pd.DataFrame) -> Verdict:
    """Shifted by ±3 against standardised, after training."""

    def part(shift: float, outcome: str = "dead", **asked: Any) -> Part:
        words = f"shifted by {shift:+g}" if shift else "as they are, [0, 1]"
        label = f"{words}: accuracy" if outcome == "accuracy" else words
        return contrast(table, outcome, raw(shift), STANDARDISED, label=label, **asked)

    return judge(
        part(-3, at_least=0.1),
        part(3, at_least=0.1),
        also=[
            part(-1, at_least=0.1),
            part(1, at_least=0.1),
            part(0, at_least=0.02),
            part(-3, "accuracy", at_most=-0.05),
            part(3, "accuracy", at_most=-0.05),
        ],
    )


CLAIM = Claim(
    name="off_centre_inputs",
    sentence=SENTENCE,
    source="textbook folklore (LeCun et al. 1998, “Efficient BackProp”, on centring)",
    metric="Dead share on the held-out probe after training; before training, and test accuracy, beside it.",
    interest="10 points of dead share.",
    design="Images in [0, 1], with -3, -1, 0, 1 or 3 added to every pixel, against the standardised images: "
    "standardising undoes every shift, so that it is the cured arm of each.",
    sweeps=(
        Sweep(("data.standardise=false", "data.shift=-3,-1,0,1,3")),
        Sweep(("data.standardise=true",)),
    ),
    decide=decide,
    figure=partial(
        arms,
        arms={
            "standardised": STANDARDISED,
            "[0, 1]": raw(0),
            **{f"[0, 1] {shift:+d}": raw(shift) for shift in (-1, 1, -3, 3)},
        },
        outcomes=("born_dead", "dead", "accuracy"),
        title=SENTENCE,
    ),
)
