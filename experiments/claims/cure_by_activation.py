"""Another activation brings a network back from a large negative bias."""

from functools import partial

import pandas as pd

from experiments.activations import OTHERS, SWEPT
from experiments.claim import Claim, Sweep
from experiments.contrasts import Arm, contrast, rows_of
from experiments.figures import doses
from experiments.readings import gradients
from experiments.verdicts import Part, Verdict, judge

SENTENCE = "With LeakyReLU, PReLU, ELU, SELU, SiLU, GELU or CReLU a badly started network still learns."
RECIPE, DOSE = "recipes", "slopes"
SLOPES, BIASES = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5), (-1, -2, -3)
LEARNED = 0.5  # of the test inputs right
EPOCHS = {"small": ("train.epochs=30",), "standard": ("train.epochs=60",), "full": ("train.epochs=60",)}


def slope(value: float, bias: float = -2) -> Arm:
    return {"sweep": DOSE, "activation.slope": value, "bias.offset": bias}


def decide(table: pd.DataFrame) -> Verdict:
    """Each activation as its paper has it against ReLU, from biases of -2; LeakyReLU's slopes beside it."""
    relu = {"sweep": RECIPE, "activation.name": "relu"}

    def part(arm: Arm, label: str, outcome: str = "accuracy", at_most: float | None = None) -> Part:
        at_least = 0.2 if at_most is None else None
        return contrast(table, outcome, arm, relu, label=label, at_least=at_least, at_most=at_most)

    recipes = {name: {"sweep": RECIPE, "activation.name": name} for name in OTHERS}
    dormant = "gradient_dormant_share"
    return judge(
        *(part(arm, name) for name, arm in recipes.items()),
        also=[
            *(part(slope(value), f"LeakyReLU, slope {value:g}") for value in SLOPES),
            *(part(arm, f"{name}: dormant", dormant, at_most=-0.1) for name, arm in recipes.items()),
        ],
    )


def learned(table: pd.DataFrame) -> str:
    """The dose: in how many seeds a slope learns, by bias."""
    lines = []
    for bias in BIASES:
        shares = [(value, rows_of(table, slope(value, bias))["accuracy"] >= LEARNED) for value in SLOPES]
        lines.append(f"bias {bias}: " + ", ".join(f"{value:g} {s.sum()} of {len(s)}" for value, s in shares))
    return (
        "LeakyReLU's slope is a dose. Seeds that learned (half of the test inputs right), by slope: "
        f"{'; '.join(lines)}."
    )


CLAIM = Claim(
    name="cure_by_activation",
    sentence=SENTENCE,
    source="CS231n and the papers of each activation",
    metric="Test accuracy after training; gradient-dormant share beside it.",
    interest="20 points of test accuracy: chance is 10 %, a ReLU network from this start stays there.",
    design="Every bias that feeds an activation starts at -2, where nearly all ReLU units are dead; SGD "
    "at 0.1, the same draws for every activation. A gradient that is not exactly 0 is not yet one that "
    "teaches: the metric is what was learned. Activations differ in their slope below 0 (0.01 of LeakyReLU, "
    "0.25 of PReLU), so LeakyReLU's slope is varied by itself, from biases of -1, -2 and -3. Changed after a "
    "first run of a third of the epochs without the slopes: late is not never.",
    sweeps=(
        Sweep(("bias.offset=-2", SWEPT), RECIPE, EPOCHS),
        Sweep(
            (
                f"bias.offset={','.join(map(str, BIASES))}",
                "activation=leaky_relu",
                f"activation.slope={','.join(map(str, SLOPES))}",
            ),
            DOSE,
            EPOCHS,
        ),
    ),
    read=gradients,
    decide=decide,
    beside=learned,
    figure=partial(
        doses,
        along="activation.slope",
        groups={f"bias {bias}": {"sweep": DOSE, "bias.offset": bias} for bias in BIASES},
        outcomes=("accuracy", "gradient_dormant_share"),
        title=SENTENCE,
        log=True,
    ),
)
