"""Another activation brings a network back from a large negative bias."""

from functools import partial

import pandas as pd

from experiments.activations import ARMS, OTHERS, SWEPT, against_relu
from experiments.claim import Claim, Sweep
from experiments.figures import arms
from experiments.readings import gradients
from experiments.verdicts import Verdict, judge

SENTENCE = "With LeakyReLU, PReLU, ELU, SELU, SiLU, GELU or CReLU a badly started network still learns."


def decide(table: pd.DataFrame) -> Verdict:
    """Each activation against ReLU, from biases of -2."""
    part = partial(against_relu, table)
    return judge(
        *(part(name, "accuracy", at_least=0.2) for name in OTHERS),
        also=[part(name, "gradient_dormant_share", ": dormant", at_most=-0.1) for name in OTHERS],
    )


CLAIM = Claim(
    name="cure_by_activation",
    sentence=SENTENCE,
    source="CS231n and the papers of each activation",
    metric="Test accuracy after training; gradient-dormant and gate-dead share beside it.",
    interest="20 points of test accuracy: chance is 10 %, a ReLU network from this start stays there.",
    design="Every bias that feeds an activation starts at -2, where 98 % of the ReLU units are dead; SGD "
    "at 0.1, the same draws for every activation. A gradient that is not exactly 0 is not yet one that "
    "teaches: the metric is what was learned.",
    sweeps=(Sweep(("bias.offset=-2", SWEPT)),),
    read=gradients,
    decide=decide,
    figure=partial(
        arms,
        arms=ARMS,
        outcomes=("accuracy", "gradient_dormant_share", "dead"),
        title=SENTENCE,
    ),
)
