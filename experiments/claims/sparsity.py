"""ReLU is sparse."""

from functools import partial

import pandas as pd

from experiments.claim import Claim, Sweep
from experiments.contrasts import level
from experiments.figures import arms
from experiments.readings import sparsity
from experiments.verdicts import Part, Verdict, judge

SENTENCE = "ReLU networks are sparse: on any input about half of the units output zero."
DATA = {"inputs in [0, 1]": False, "standardised inputs": True}


def decide(table: pd.DataFrame) -> Verdict:
    """The silent share is half, within ten points, before and after training."""

    def part(data: str, when: str, outcome: str, words: str = "") -> Part:
        arm = {"data.standardise": DATA[data]}
        return level(table, outcome, arm, 0.5, label=f"{data}, {when} training{words}", within=0.1)

    cases = [(data, when) for when in ("before", "after") for data in DATA]
    return judge(
        *(part(data, when, f"silent_{when}_share") for data, when in cases),
        also=[part(data, when, f"silent_living_{when}_share", ", living units") for data, when in cases],
    )


CLAIM = Claim(
    name="sparsity",
    sentence=SENTENCE,
    source="Glorot, Bordes & Bengio 2011 (“about 50 % of the hidden units’ continuous output values are "
    "real zeros”)",
    metric="Share of (unit, probe input) pairs with the gate shut, less one half: of all units, and of the "
    "living ones.",
    interest="“About half” is taken as within ten points of 50 % (equivalence).",
    design="The same networks on inputs in [0, 1] and standardised, before and after training. Dead units "
    "are a column of their own: a sparse unit is silent on some inputs, a dead one on all, and the living "
    "units’ sparsity says how much is which.",
    sweeps=(Sweep(("data.standardise=false,true",)),),
    read=sparsity,
    decide=decide,
    figure=partial(
        arms,
        arms={name: {"data.standardise": value} for name, value in DATA.items()},
        outcomes=("silent_before_share", "silent_after_share", "silent_living_after_share", "dead"),
        title=SENTENCE,
    ),
)
