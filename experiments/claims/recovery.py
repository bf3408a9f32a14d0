"""A dead unit hardly ever recovers."""

from functools import partial

import pandas as pd

from experiments.claim import EVERY_SET, SEEN, Claim, Sweep
from experiments.figures import arms
from experiments.pooled import pooled, survival
from experiments.readings import both, recoveries, revivals
from experiments.verdicts import Part, Verdict, judge

SENTENCE = "A ReLU unit that is dead hardly ever recovers."
LAYERS = (1, 2, 3)
WINDOW = 132  # steps: three epochs of the digits
TIMES = 5  # windows after its death for which a unit is followed: half of the training
RATES = {"SGD 0.1": 0.1, "SGD 0.3": 0.3}


def decide(table: pd.DataFrame) -> Verdict:
    """Of the units that were ever dead, at least nine in ten stay so for 15 epochs, layer by layer."""

    def part(layer: int, name: str) -> Part:
        left = survival(f"revived_{layer}_", f"at_risk_{layer}_")
        arm = {"optim.lr": RATES[name]}
        return pooled(table, left, arm, 0, label=f"layer {layer}, {name}", at_least=0.9)

    return judge(
        *(part(layer, "SGD 0.1") for layer in LAYERS), also=[part(layer, "SGD 0.3") for layer in LAYERS]
    )


CLAIM = Claim(
    name="recovery",
    sentence=SENTENCE,
    source="CS231n (“irreversibly die”, “never activate on any datapoint again”)",
    metric="Of the units silent on three epochs of training inputs at some time (the first three or "
    "later), the share that does not fire in the 15 epochs after, by layer: the Kaplan–Meier estimate over "
    "the units of all seeds, where a unit that is dead at the end of training counts as long as it was seen. "
    "The seed is the unit of analysis (jackknife); a seed without a death tells nothing.",
    interest="“Hardly ever” is taken as at most one in ten that comes back: at least 90 % stay dead.",
    design="Every unit is counted at every step; three epochs without a single firing are a death. (Within "
    "one epoch the weights move so far that a unit can miss an input that it would fire on before or "
    "after.) In the first layer, whose inputs do not move, a unit dead on all training inputs has no "
    "gradient and cannot return; deeper, the inputs move with the layers below. Telling the layers apart "
    "separates the two. 30 epochs of SGD at 0.1, and at 0.3 beside it. Changed after a first run (windows "
    "of one epoch, 20 epochs, 12 seeds: undecided), in which half-dead units counted as dead. "
    "Changed again after a run on three data sets: a mean over the seeds of each one's share lost the seeds "
    "without a death, and gave a seed with one death the weight of one with thirty.",
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
    read=both(recoveries, partial(revivals, times=TIMES)),
    data_sets=EVERY_SET,
    looked_at=SEEN,
    decide=decide,
    figure=partial(
        arms,
        arms={name: {"optim.lr": rate} for name, rate in RATES.items()},
        outcomes=(*(f"stayed_dead_{layer}_share" for layer in LAYERS), "accuracy"),
        title=SENTENCE,
    ),
)
