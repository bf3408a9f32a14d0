"""ReLU is cheaper."""

from functools import partial

import numpy as np
import pandas as pd

from experiments.claim import Claim
from experiments.contrasts import contrast
from experiments.figures import arms
from experiments.timing import WIDTHS, activation_costs
from experiments.units import RATIO
from experiments.verdicts import Part, Verdict, judge

SENTENCE = "ReLU is cheaper to compute than sigmoid, tanh, ELU or GELU, and so training is faster."
OTHERS = ("sigmoid", "tanh", "elu", "gelu")
LEAST = {"op": 1.25, "step": 1.05}
WIDTH = 512  # decides; the others go along


def decide(table: pd.DataFrame) -> Verdict:
    """Each activation's seconds over ReLU's of the same round: the operation, and the training step."""
    devices = list(dict.fromkeys(table["device"]))

    def part(what: str, name: str, device: str, width: int = WIDTH) -> Part:
        same = {"what": what, "device": device, "width": width}
        sides = ({**same, "activation": one} for one in (name, "relu"))
        where = ("" if width == WIDTH else f", width {width}") + ("" if device == "cpu" else " (GPU)")
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
        also=[
            part("step", name, device, width)
            for device in devices
            for width in WIDTHS
            if width != WIDTH
            for name in OTHERS
        ],
    )


CLAIM = Claim(
    name="cheaper",
    sentence=SENTENCE,
    source="CS231n (“can be implemented by simply thresholding a matrix of activations at zero”)",
    metric="Seconds over ReLU's seconds, of the same round: forward and backward of the activation on 128 "
    "× 512 numbers, and a whole training step of a 784-512-512-10 MLP, batch 128; beside it, the step at "
    "widths of 64 and 2048.",
    interest="A quarter more for the operation; 5 % more for the step.",
    design="Rounds take the place of seeds: in each, the activations take short turns, each time in a new "
    "order, so that what else the machine does hits them alike; a round's value is the median of its turns; "
    "one thread. Operation and step side by "
    "side, since a cheap operation in a step that is all matrix products saves nothing. On a GPU too, "
    "where there is one.",
    measure=activation_costs,
    decide=decide,
    figure=partial(
        arms,
        arms={
            f"{name}, {what}": {"what": what, "activation": name, "device": "cpu", "width": WIDTH}
            for what in LEAST
            for name in ("relu", *OTHERS)
        },
        outcomes=("relative",),
        title=SENTENCE,
    ),
)
