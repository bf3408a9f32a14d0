"""ReLU is cheaper."""

from functools import partial

import numpy as np
import pandas as pd

from experiments.claim import Claim
from experiments.contrasts import contrast
from experiments.figures import arms
from experiments.timing import activation_costs
from experiments.units import RATIO
from experiments.verdicts import Part, Verdict, judge

SENTENCE = "ReLU is cheaper to compute than sigmoid, tanh, ELU or GELU, and so training is faster."
OTHERS = ("sigmoid", "tanh", "elu", "gelu")
LEAST = {"op": 1.25, "step": 1.05}


def decide(table: pd.DataFrame) -> Verdict:
    """Each activation's seconds over ReLU's of the same round: the operation, and the training step."""
    devices = list(dict.fromkeys(table["device"]))

    def part(what: str, name: str, device: str) -> Part:
        sides = ({"what": what, "activation": one, "device": device} for one in (name, "relu"))
        where = "" if device == "cpu" else " (GPU)"
        words = {"op": "forward and backward alone", "step": "a whole training step"}[what]
        return contrast(
            table,
            "seconds",
            *sides,
            label=f"{name}: {words}{where}",
            at_least=np.log(LEAST[what]),
            unit=RATIO,
        )

    return judge(
        *(part(what, name, device) for device in devices for what in LEAST for name in OTHERS),
    )


CLAIM = Claim(
    name="cheaper",
    sentence=SENTENCE,
    source="CS231n (“can be implemented by simply thresholding a matrix of activations at zero”)",
    metric="Seconds over ReLU's seconds, of the same round: forward and backward of the activation on 128 "
    "× 512 numbers, and a whole training step of a 784-512-512-10 MLP, batch 128.",
    interest="A quarter more for the operation; 5 % more for the step.",
    design="Rounds take the place of seeds: in each, all activations are timed one after the other in a "
    "new order, so that what else the machine does hits them alike; one thread. Operation and step side by "
    "side, since a cheap operation in a step that is all matrix products saves nothing. On a GPU too, "
    "where there is one.",
    measure=activation_costs,
    decide=decide,
    figure=partial(
        arms,
        arms={
            f"{name}, {what}": {"what": what, "activation": name, "device": "cpu"}
            for what in LEAST
            for name in ("relu", *OTHERS)
        },
        outcomes=("relative",),
        title=SENTENCE,
    ),
)
