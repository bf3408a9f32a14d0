"""PyTorch's default initialisation in deep ReLU networks: dead units before the first step."""

from functools import partial
from typing import Any

import pandas as pd

from experiments.claim import Claim, Sweep
from experiments.contrasts import contrast, level
from experiments.figures import doses
from experiments.verdicts import Part, Verdict, judge

SENTENCE = (
    "PyTorch's default initialisation leaves many more units of a deep ReLU network dead than He's: neither "
    "its small weights nor its biases do so alone, both together do."
)
#: Arm → overrides: He's uniform weights are √6 times the default ones, drawn from the same stream.
HE, WEIGHTS, BIASES, DEFAULT = "He", "small weights alone", "biases alone", "PyTorch's default"
ARMS = {
    HE: ("init=kaiming_uniform", "bias=zero"),
    WEIGHTS: ("init=torch_default", "bias=zero"),
    BIASES: ("init=kaiming_uniform", "bias=torch_default"),
    DEFAULT: ("init=torch_default", "bias=torch_default"),
}
DEPTHS, DEEP, SHALLOW = (3, 10, 16, 20), 16, 3
TRAINED = ", trained"


def decide(table: pd.DataFrame) -> Verdict:
    """The default against He at 16 layers, and each half of the default alone."""

    def part(arm: str, depth: int = DEEP, **asked: Any) -> Part:
        sides = ({"sweep": name, "model.depth": depth} for name in (arm, HE))
        return contrast(table, "born_dead", *sides, label=f"{arm}, {depth} layers, against He", **asked)

    def after(outcome: str, words: str, **asked: Any) -> Part:
        sides = ({"sweep": f"{name}{TRAINED}"} for name in (DEFAULT, HE))
        return contrast(table, outcome, *sides, label=f"{words} after training, {DEEP} layers", **asked)

    whole = {"sweep": DEFAULT, "model.depth": DEEP}
    return judge(
        part(DEFAULT, at_least=0.2),
        part(WEIGHTS, within=0.05),
        part(BIASES, within=0.05),
        also=[
            part(DEFAULT, SHALLOW, at_least=0.05),
            part(DEFAULT, 10, at_least=0.2),
            level(table, "born_dead", whole, 0.45, label=f"{DEFAULT}, {DEEP} layers, less 45 %", within=0.05),
            after("dead", "dead", at_least=0.1),
            after("accuracy", "accuracy", at_most=-0.05),
        ],
    )


CLAIM = Claim(
    name="default_initialisation",
    sentence=SENTENCE,
    source="torch.nn.Linear: weights and biases uniform within 1 / √fan_in, a deviation √6 times smaller "
    "than He's (He et al. 2015, 1502.01852)",
    metric="Dead share on the held-out probe before training; after training, with test accuracy, beside it.",
    interest="20 points of dead share; where nothing is said to happen, a change within ±5 points.",
    design="MLPs of 3, 10, 16 and 20 layers of 64. Two factors: the scale of the weights, He's or the "
    "default (the same draws, so that at zero biases the dead units are the same ones), and biases, zero or "
    f"the default. Beside it {DEEP} layers are trained with Adam at 0.001. Margins were fixed after a "
    "rehearsal on seeds 100 to 115.",
    sweeps=(
        *(
            Sweep(
                (
                    *words,
                    f"model.depth={','.join(map(str, DEPTHS))}",
                    "optim=adam",
                    "train.max_steps=1",
                    "record.gradients=false",
                ),
                arm,
            )
            for arm, words in ARMS.items()
        ),
        *(
            Sweep(
                (*ARMS[arm], f"model.depth={DEEP}", "optim=adam", "record.gradients=false"), f"{arm}{TRAINED}"
            )
            for arm in (HE, DEFAULT)
        ),
    ),
    decide=decide,
    figure=partial(
        doses,
        along="model.depth",
        groups={arm: {"sweep": arm} for arm in ARMS},
        outcomes=("born_dead",),
        title=SENTENCE,
        log=False,
    ),
)
