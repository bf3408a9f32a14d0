"""Skip connections keep units alive."""

from functools import partial
from typing import Any

import pandas as pd

from experiments.claim import Claim, Sweep
from experiments.contrasts import contrast
from experiments.figures import arms
from experiments.verdicts import Part, Verdict, judge

SENTENCE = "Skip connections keep the units of deep networks alive."
SKIPS = {
    "post_add": "sum, then ReLU",
    "pre_norm": "LayerNorm in the branch",
    "zero_init": "branch that starts at 0",
}


def decide(table: pd.DataFrame) -> Verdict:
    """Each kind of residual network against the plain one."""

    def part(skip: str, outcome: str, words: str, **asked: Any) -> Part:
        sides = ({"model.skip": name} for name in (skip, "none"))
        return contrast(table, outcome, *sides, label=f"{SKIPS[skip]}{words}", **asked)

    return judge(
        *(part(skip, "dead", "", at_most=-0.02) for skip in SKIPS),
        also=[
            *(part(skip, "born_dead", ": before training", at_most=-0.02) for skip in SKIPS),
            *(part(skip, "accuracy", ": accuracy", at_least=0.02) for skip in SKIPS),
        ],
    )


CLAIM = Claim(
    name="skip_connections",
    sentence=SENTENCE,
    source="textbook folklore after He et al. 2015 (1512.03385)",
    metric="Dead share on the held-out probe after training; before training, and test accuracy, beside it.",
    interest="2 points of dead share.",
    design="Eight activations of 64 units each: a plain chain; relu(x + linear(x)); x + "
    "linear(relu(linear(LayerNorm(x)))); x + linear(relu(linear(x))) with the outer linear map at 0. Four "
    "arms, since “a skip connection” is not one thing: normalisation and a branch that starts at 0 are "
    "told apart from the sum itself. SGD at 0.03.",
    sweeps=(Sweep(("model.depth=8", "model.skip=none,post_add,pre_norm,zero_init", "optim.lr=0.03")),),
    decide=decide,
    figure=partial(
        arms,
        arms={"plain": {"model.skip": "none"}}
        | {words: {"model.skip": skip} for skip, words in SKIPS.items()},
        outcomes=("born_dead", "dead", "accuracy"),
        title=SENTENCE,
    ),
)
