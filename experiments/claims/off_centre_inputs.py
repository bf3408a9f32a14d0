"""Inputs far from zero mean kill units; standardising prevents it."""

from functools import partial
from typing import Any

import pandas as pd

from experiments.claim import EVERY_SET, SEEN, Claim, Sweep
from experiments.contrasts import Arm, contrast
from experiments.figures import arms
from experiments.verdicts import Part, Verdict, judge

SENTENCE = "Inputs with a mean far from zero kill ReLU units; standardising the inputs prevents it."
FAR = 3  # deviations by which the mean is moved
LARGE = round((1 + FAR**2) ** 0.5, 6)  # the factor that makes mean ‖x‖² as large, and leaves the mean at 0


def images(*, shift: float = 0.0, scale: float = 1.0, standardise: bool = True) -> Arm:
    """The runs with such inputs."""
    return {"data.standardise": standardise, "data.scale": scale, "data.shift": shift}


STANDARDISED, SCALED = images(), images(scale=LARGE)
ARMS: dict[str, Arm] = {
    "standardised": STANDARDISED,
    f"mean moved to -{FAR}": images(shift=-FAR),
    f"mean moved to +{FAR}": images(shift=FAR),
    "as large, mean 0": SCALED,
    "as they are, [0, 1]": images(standardise=False),
    f"[0, 1] -{FAR}": images(shift=-FAR, standardise=False),
    f"[0, 1] +{FAR}": images(shift=FAR, standardise=False),
}


def decide(table: pd.DataFrame) -> Verdict:
    """The mean moved by ±3 against standardised inputs, and against inputs as large with mean 0."""

    def part(name: str, other: Arm = STANDARDISED, outcome: str = "dead", **asked: Any) -> Part:
        words = " against as large, mean 0" if other == SCALED else ""
        label = f"{name}{words}{': accuracy' if outcome == 'accuracy' else ''}"
        return contrast(table, outcome, ARMS[name], other, label=label, **asked)

    moved, raw = [list(ARMS)[k : k + 2] for k in (1, 5)]
    return judge(
        *(part(name, at_least=0.1) for name in moved),
        *(part(name, SCALED, at_least=0.1) for name in moved),
        also=[
            part("as large, mean 0", at_least=0.1),
            part("as they are, [0, 1]", at_least=0.02),
            *(part(name, at_least=0.1) for name in raw),
            *(part(name, outcome="accuracy", at_most=-0.05) for name in (*moved, "as large, mean 0")),
        ],
    )


CLAIM = Claim(
    name="off_centre_inputs",
    sentence=SENTENCE,
    source="textbook folklore (LeCun et al. 1998, “Efficient BackProp”, on centring)",
    metric="Dead share on the held-out probe after training; before training, and test accuracy, beside it.",
    interest="10 points of dead share.",
    design=f"Standardised images, with -{FAR} or {FAR} added to every pixel, against the standardised ones "
    f"as they are; and against these times √{1 + FAR**2}, whose mean ‖x‖² is as large and whose mean is 0. "
    "Moving the mean also makes inputs larger, and larger inputs alone make steps larger: the second control "
    f"tells the two apart. Images in [0, 1], and with ±{FAR} added, go along. SGD at 0.1 for all. Changed "
    "after a first run on three data sets without the second control (supported).",
    sweeps=(
        Sweep(("data.standardise=true", f"data.shift=-{FAR},0,{FAR}")),
        Sweep(("data.standardise=true", f"data.scale={LARGE}")),
        Sweep(("data.standardise=false", f"data.shift=-{FAR},0,{FAR}")),
    ),
    data_sets=EVERY_SET,
    looked_at=SEEN,
    decide=decide,
    figure=partial(arms, arms=ARMS, outcomes=("born_dead", "dead", "accuracy"), title=SENTENCE),
)
