"""ReLU converges faster than sigmoid and tanh."""

from functools import partial

import numpy as np
import pandas as pd

from experiments.claim import DATA_SETS, Claim, Sweep
from experiments.contrasts import Arm, contrast
from experiments.figures import doses
from experiments.readings import epochs_to
from experiments.tuning import TUNING, chosen, judged, tuned
from experiments.units import RATIO
from experiments.verdicts import Part, Verdict, judge

SENTENCE = "ReLU networks converge faster than sigmoid and tanh networks."
RATES = (0.03, 0.1, 0.3, 1.0, 3.0)
GROUPS: dict[str, Arm] = {name: {"activation.name": name} for name in ("relu", "tanh", "sigmoid")}
#: What ReLU at 0.1 reaches within three epochs: looked up on seed 999, which does not judge.
REACHED = {"digits": 0.9, "mnist": 0.85, "fashion_mnist": 0.72}
#: Outcome → how far its level is from that.
LEVELS = {"epochs_needed": 0.0, "epochs_early": -0.1, "epochs_late": 0.05}
BESIDE = {"epochs_early": "10 points lower", "epochs_late": "5 points higher"}


def rates_of(table: pd.DataFrame) -> dict[str, float]:
    """Activation → its own learning rate; a diverged run counts as the slowest."""
    return tuned(table, GROUPS, "epochs_needed", least=True)


def decide(table: pd.DataFrame) -> Verdict:
    """Sigmoid and tanh against ReLU: epochs to a test accuracy, each at its own learning rate."""
    best, others = rates_of(table), judged(table)

    def part(name: str, rates: dict[str, float], words: str, outcome: str = "epochs_needed") -> Part:
        def arm(one: str) -> Arm:
            return {"activation.name": one, "optim.lr": rates[one]}

        label = f"{name} against ReLU, {words}"
        return contrast(
            others, outcome, arm(name), arm("relu"), label=label, at_least=np.log(1.25), unit=RATIO
        )

    names = ("tanh", "sigmoid")
    same: dict[str, float] = dict.fromkeys((*names, "relu"), 0.1)
    return judge(
        *(part(name, best, "each tuned") for name in names),
        also=[
            *(part(name, same, "both at 0.1") for name in names),
            *(part(name, best, words, column) for column, words in BESIDE.items() for name in names),
        ],
    )


draw = partial(
    doses,
    along="optim.lr",
    groups=GROUPS,
    outcomes=("epochs_needed", "accuracy"),
    title=SENTENCE,
)

CLAIM = Claim(
    name="converges_faster",
    sentence=SENTENCE,
    source="Krizhevsky et al. 2012 (six times faster than tanh on CIFAR-10), and CS231n after it",
    metric="Epochs until the test accuracy first reaches a level "
    f"({', '.join(f'{DATA_SETS[name]} {level:.0%}' for name, level in REACHED.items())}; beside it, levels "
    "10 points lower and 5 points higher), as a ratio; a run that does not get there counts with all its "
    "epochs, which favours the slower one.",
    interest="A quarter more epochs.",
    design=f"SGD at five learning rates; seeds 0 to {TUNING - 1} choose one for each activation, the others "
    "judge. Glorot's initialisation for sigmoid and tanh, He's for ReLU. The comparison at one learning "
    "rate for all goes along: it is what is usually shown, and it favours whichever activation the rate "
    "suits.",
    sweeps=tuple(
        Sweep(
            (
                f"activation={names}",
                f"init={init}",
                f"optim.lr={','.join(map(str, RATES))}",
                "train.epochs=20",
                "train.test_every=1",
            ),
            budgets={"small": ("seed=range(16)",)},
        )
        for names, init in (("relu", "kaiming_normal"), ("sigmoid,tanh", "xavier_normal"))
    ),
    read=epochs_to(
        {name: {column: base + by for column, by in LEVELS.items()} for name, base in REACHED.items()}
    ),
    beside=lambda table: chosen(rates_of(table)),
    decide=decide,
    figure=draw,
)
