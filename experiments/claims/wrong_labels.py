"""Wrong labels kill units."""

from functools import partial
from typing import Any

import pandas as pd

from experiments.claim import Claim, Sweep
from experiments.contrasts import contrast
from experiments.figures import arms
from experiments.verdicts import Part, Verdict, judge

SENTENCE = "Training on wrong labels kills units."
OPTIMIZERS = {"sgd": "SGD", "adam": "Adam"}
WRONG = {"fixed": "random labels", "reshuffled": "labels reshuffled every epoch"}


def decide(table: pd.DataFrame) -> Verdict:
    """Both kinds of wrong labels against the right ones, with both optimizers."""

    def part(optimizer: str, wrong: str, outcome: str = "dead", **asked: Any) -> Part:
        sides = ({"sweep": name, "optim.name": optimizer} for name in (wrong, "right"))
        words = f"{OPTIMIZERS[optimizer]}, {WRONG[wrong]}" + (": died ever" if outcome == "died" else "")
        return contrast(table, outcome, *sides, label=words, **asked)

    pairs = [(optimizer, wrong) for optimizer in OPTIMIZERS for wrong in WRONG]
    return judge(
        *(part(*pair, at_least=0.03) for pair in pairs),
        also=[part(*pair, "died", at_least=0.03) for pair in pairs],
    )


CLAIM = Claim(
    name="wrong_labels",
    sentence=SENTENCE,
    source="textbook folklore; Sokar et al. 2023 (2302.12902) of reshuffled labels",
    metric="Dead share on the held-out probe after training, with test accuracy (chance is what is "
    "expected there).",
    interest="3 points of dead share.",
    design="Images with right labels; with labels drawn at random once (9 of 10 are wrong); with labels "
    "reshuffled anew in every epoch, so that nothing can be learned. SGD at 0.1 and Adam at 0.001, 40 "
    "epochs: whether an effect is one of the labels or of an optimizer that magnifies small gradients. "
    "Changed after a first run of 20 epochs, which was undecided on reshuffled labels.",
    sweeps=tuple(
        Sweep(("train.epochs=40", "optim=sgd,adam", *words), name)
        for name, words in (
            ("right", ()),
            ("fixed", ("data.label_noise=0.9",)),
            ("reshuffled", ("data.reshuffle_labels_every=1",)),
        )
    ),
    decide=decide,
    figure=partial(
        arms,
        arms={
            f"{name}: {words}": {"sweep": arm, "optim.name": optimizer}
            for optimizer, name in OPTIMIZERS.items()
            for words, arm in (("right", "right"), ("random", "fixed"), ("reshuffled", "reshuffled"))
        },
        title=SENTENCE,
    ),
)
