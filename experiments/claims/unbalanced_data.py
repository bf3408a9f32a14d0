"""Unbalanced classes kill units."""

from functools import partial
from typing import Any

import pandas as pd

from experiments.claim import Claim, Sweep
from experiments.contrasts import contrast
from experiments.figures import arms
from experiments.verdicts import Part, Verdict, judge

SENTENCE = "Unbalanced classes drive units into the dead region."
RATIO = 100  # most frequent / least frequent class
SAME = 348  # training images that this ratio leaves of the digits
OPTIMIZERS = {"sgd": "SGD", "adam": "Adam"}
ARMS = {"all, balanced": "all", f"{SAME}, balanced": "same", f"{SAME}, 100 : 1": "unbalanced"}


def decide(table: pd.DataFrame) -> Verdict:
    """Unbalanced against balanced of the same size; against all data goes along."""

    def part(optimizer: str, against: str, outcome: str = "dead", **asked: Any) -> Part:
        sides = ({"sweep": name, "optim.name": optimizer} for name in ("unbalanced", against))
        words = {"same": "same size", "all": "all data"}[against]
        return contrast(
            table, outcome, *sides, label=f"{OPTIMIZERS[optimizer]}: {outcome}, against {words}", **asked
        )

    return judge(
        *(part(optimizer, "same", at_least=0.03) for optimizer in OPTIMIZERS),
        also=[
            *(part(optimizer, "all", at_least=0.03) for optimizer in OPTIMIZERS),
            *(part(optimizer, "same", "accuracy", at_most=-0.05) for optimizer in OPTIMIZERS),
        ],
    )


CLAIM = Claim(
    name="unbalanced_data",
    sentence=SENTENCE,
    source="textbook folklore",
    metric="Dead share on the held-out, balanced probe after training, with test accuracy.",
    interest="3 points of dead share.",
    design=f"An exponential class profile of {RATIO} : 1, which leaves {SAME} of 1,437 digits. The "
    f"control "
    "has as many images of all classes alike: data that are unbalanced are also fewer, and only this "
    "comparison tells the two apart. All arms take the same number of steps.",
    sweeps=tuple(
        Sweep(("train.epochs=1000", "train.max_steps=440", "optim=sgd,adam", *words), name)
        for name, words in (
            ("all", ()),
            ("same", (f"data.subset={SAME}",)),
            ("unbalanced", (f"data.imbalance={RATIO}",)),
        )
    ),
    decide=decide,
    figure=partial(
        arms,
        arms={
            f"{name}: {words}": {"sweep": arm, "optim.name": optimizer}
            for optimizer, name in OPTIMIZERS.items()
            for words, arm in ARMS.items()
        },
        title=SENTENCE,
    ),
)
