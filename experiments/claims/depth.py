"""Deeper networks have more dead units."""

from functools import partial
from typing import Any

import pandas as pd

from experiments.claim import EVERY_SET, SEEN, Claim, Sweep
from experiments.contrasts import Arm, contrast, per_seed
from experiments.figures import doses
from experiments.tuning import RATE, TUNING, chosen, judged, tuned
from experiments.verdicts import Part, Verdict, judge

SENTENCE = "The deeper a ReLU network, the larger the share of its units that is dead."
DEPTHS, RATES = (1, 2, 4, 8, 16), (0.01, 0.03, 0.1, 0.3)
TRAINS = 0.75  # of the best depth's accuracy
ARMS: dict[str, Arm] = {str(depth): {"model.depth": depth} for depth in DEPTHS}


def best(table: pd.DataFrame) -> dict[str, Arm]:
    """Depth → its runs at its own learning rate."""
    return {depth: {**ARMS[depth], RATE: rate} for depth, rate in tuned(table, ARMS).items()}


def decide(table: pd.DataFrame) -> Verdict:
    """16 hidden layers against 1, before and after training, each depth at its own learning rate."""
    arms, others = best(table), judged(table)

    def part(depth: str, outcome: str, words: str, **asked: Any) -> Part:
        label = f"{depth} layers against 1, {words}"
        return contrast(others, outcome, arms[depth], arms["1"], label=label, **asked)

    return judge(
        part("16", "born_dead", "before training", at_least=0.05),
        part("16", "dead", "after training", at_least=0.05),
        also=[
            part("8", "born_dead", "before training", at_least=0.05),
            part("8", "dead", "after training", at_least=0.05),
            *(part(depth, "accuracy", "accuracy", at_most=-0.02) for depth in ("8", "16")),
        ],
    )


def beside(table: pd.DataFrame) -> str:
    """The learning rates that were chosen, and which depths trained at them."""
    others = judged(table)
    reached = {depth: per_seed(others, "accuracy", arm).mean() for depth, arm in best(table).items()}
    depths = ", ".join(f"{depth} {accuracy:.0%}" for depth, accuracy in reached.items())
    short = [depth for depth, accuracy in reached.items() if not accuracy >= TRAINS * max(reached.values())]
    lack = f"did not train: {' and '.join(short)}" if short else "all trained"
    return (
        f"{chosen(tuned(table, ARMS))} Test accuracy by number of layers: {depths}; by three quarters of the "
        f"best one's as the least, {lack}."
    )


CLAIM = Claim(
    name="depth",
    sentence=SENTENCE,
    source="textbook folklore; Lu et al. 2019 (1903.06733) of whole networks",
    metric="Dead share of all hidden units on the held-out probe, before and after training, with test "
    "accuracy.",
    interest="5 points of dead share.",
    design="MLPs with 1 to 16 hidden layers of 64 units, He's initialisation, zero biases, SGD at four "
    f"rates; seeds 0 to {TUNING - 1} choose one for each depth by test accuracy, the others judge. "
    "Networks of different depth share a seed's batches, and the weights of the layers that both "
    "have. Changed after a first run on three data sets at 0.1 for all depths, at which 16 layers hardly "
    "trained (47 to 51 % accuracy): the dead units after training were those of a network that had not "
    "learned.",
    sweeps=(
        Sweep(
            (
                f"model.depth={','.join(map(str, DEPTHS))}",
                f"optim.lr={','.join(map(str, RATES))}",
            ),
            budgets={"small": ("seed=range(16)",)},
        ),
    ),
    data_sets=EVERY_SET,
    looked_at=SEEN,
    decide=decide,
    beside=beside,
    figure=partial(
        doses,
        along="optim.lr",
        groups={f"{depth} layer{'s' * (depth != '1')}": arm for depth, arm in ARMS.items()},
        outcomes=("born_dead", "dead", "accuracy"),
        title=SENTENCE,
    ),
)
