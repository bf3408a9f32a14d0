"""Other activations keep units learning where ReLU's die."""

from functools import partial

import pandas as pd

from experiments.activations import ARMS, OTHERS, SWEPT, against_relu
from experiments.claim import Claim, Sweep
from experiments.figures import arms
from experiments.readings import gradients
from experiments.verdicts import Verdict, judge

SENTENCE = "LeakyReLU, PReLU, ELU, SELU, SiLU, GELU and CReLU prevent units from dying."


def decide(table: pd.DataFrame) -> Verdict:
    """Each activation against ReLU, at a learning rate that kills ReLU units."""
    part = partial(against_relu, table)
    return judge(
        *(part(name, "gradient_dormant_share", at_most=-0.1) for name in OTHERS),
        also=[
            *(part(name, "dead", ": gate-dead", at_most=-0.1) for name in OTHERS),
            *(part(name, "accuracy", ": accuracy", at_least=0.02) for name in OTHERS),
        ],
    )


CLAIM = Claim(
    name="other_activations",
    sentence=SENTENCE,
    source="CS231n and the papers of each activation",
    metric="Share of units that are gradient-dormant at the end of training (gradient over the last window "
    "at most 2.5 % of the layer's mean; dead units are among them); gate-dead share and test accuracy "
    "beside it.",
    interest="10 points of gradient-dormant share.",
    design="Adam at 0.03, which kills a third to a half of the ReLU units from a healthy start (claim "
    "high_learning_rate); He's initialisation and the same draws for every activation. An activation whose "
    "gate never shuts cannot have a dead unit by definition, so that the dead share alone would beg the "
    "question: hence the gradients, and the accuracy. The start from a large negative bias is another "
    "claim, cure_by_activation.",
    sweeps=(Sweep(("optim=adam", "optim.lr=0.03", SWEPT)),),
    comments={
        "supported": "To keep units alive is one thing, to learn better another: the rows on accuracy tell "
        "whether anything was won at the task.",
    },
    read=gradients,
    decide=decide,
    figure=partial(
        arms,
        arms=ARMS,
        outcomes=("gradient_dormant_share", "dead", "accuracy"),
        title=SENTENCE,
    ),
)
