"""A dead unit hardly ever recovers."""

from functools import partial

import pandas as pd

from experiments.claim import Claim, Sweep
from experiments.contrasts import level
from experiments.figures import arms
from experiments.readings import recoveries
from experiments.verdicts import Part, Verdict, judge

SENTENCE = "A ReLU unit that is dead hardly ever recovers."
LAYERS = (1, 2, 3)
WINDOW = 132  # steps: three epochs of the digits
RATES = {"SGD 0.1": 0.1, "SGD 0.3": 0.3}


def decide(table: pd.DataFrame) -> Verdict:
    """Of the units that were ever dead, at least nine in ten stayed so, layer by layer."""

    def part(layer: int, name: str) -> Part:
        outcome = f"stayed_dead_{layer}_share"
        return level(
            table, outcome, {"optim.lr": RATES[name]}, 0, label=f"layer {layer}, {name}", at_least=0.9
        )

    return judge(
        *(part(layer, "SGD 0.1") for layer in LAYERS), also=[part(layer, "SGD 0.3") for layer in LAYERS]
    )


CLAIM = Claim(
    name="recovery",
    sentence=SENTENCE,
    source="CS231n (“irreversibly die”, “never activate on any datapoint again”)",
    metric="Of the units silent on three epochs of training inputs at some time (the first three or "
    "later), the share that never fired again, by layer.",
    interest="“Hardly ever” is taken as at most one in ten that comes back: at least 90 % stay dead.",
    design="Every unit is counted at every step; three epochs without a single firing are a death. (Within "
    "one epoch the weights move so far that a unit can miss an input that it would fire on before or "
    "after.) In the first layer, whose inputs do not move, a unit dead on all training inputs has no "
    "gradient and cannot return; deeper, the inputs move with the layers below. Telling the layers apart "
    "separates the two. 30 epochs of SGD at 0.1, and at 0.3 beside it. Changed after a first run (windows "
    "of one epoch, 20 epochs, 12 seeds: undecided), in which half-dead units counted as dead.",
    sweeps=(
        Sweep(
            (
                "optim.lr=0.1,0.3",
                f"record.census_every={WINDOW}",
                "record.early=false",
                "train.epochs=30",
            ),
            budgets={"toy": ("record.census_every=1",), "small": ("seed=range(24)",)},
        ),
    ),
    read=recoveries,
    decide=decide,
    figure=partial(
        arms,
        arms={name: {"optim.lr": rate} for name, rate in RATES.items()},
        outcomes=(*(f"stayed_dead_{layer}_share" for layer in LAYERS), "accuracy"),
        title=SENTENCE,
    ),
)
