"""Dead units cost capacity and accuracy."""

from functools import partial

import pandas as pd

from experiments.claim import Claim, Sweep
from experiments.contrasts import Arm, contrast
from experiments.figures import arms
from experiments.verdicts import Part, Verdict, judge

SENTENCE = "Dead units cost the network capacity, and with it accuracy."
WHOLE: Arm = {"model.width": 64, "bias.offset": 0}
ARMS: dict[str, Arm] = {
    "half dead (bias -0.5)": {"model.width": 64, "bias.offset": -0.5},
    "83 % dead (bias -1)": {"model.width": 64, "bias.offset": -1},
    "half missing (width 32)": {"model.width": 32, "bias.offset": 0},
    "83 % missing (width 11)": {"model.width": 11, "bias.offset": 0},
}


def decide(table: pd.DataFrame) -> Verdict:
    """A network with dead units, and one that never had them, against the whole one."""

    def part(name: str) -> Part:
        return contrast(table, "accuracy", ARMS[name], WHOLE, label=name, at_most=-0.02)

    return judge(*map(part, ARMS))


CLAIM = Claim(
    name="dead_units_cost",
    sentence=SENTENCE,
    source="textbook folklore",
    metric="Test accuracy after training, with the dead share.",
    interest="2 points of test accuracy.",
    design="Units are killed at the start by a negative bias (half, and 83 %, of 64 per layer). The "
    "control has as many units fewer and no dead ones: what a lack of capacity alone costs. What the dead "
    "network loses beyond it is not capacity, but what dead units do to the training of the others.",
    sweeps=(Sweep(("bias.offset=0,-0.5,-1",)), Sweep(("model.width=11,32",))),
    decide=decide,
    figure=partial(
        arms, arms={"whole (width 64)": WHOLE, **ARMS}, outcomes=("accuracy", "dead"), title=SENTENCE
    ),
)
