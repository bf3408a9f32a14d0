"""ReLU's unbounded outputs make training unstable."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.claim import EVERY_SET, SEEN, Claim, Sweep
from experiments.contrasts import Arm, contrast
from experiments.figures import doses
from experiments.tuning import RATE, TUNING, chosen, judged, tuned
from experiments.verdicts import Part, Verdict, judge

SENTENCE = "ReLU's outputs are unbounded, which makes training unstable; a bound on them helps."
CHANCE = 0.15  # an accuracy below this is no training: ten classes, of which guessing gets one in ten
NEAR = 0.05  # a rate trains a network if it comes within 5 points of the best rate's accuracy
RATES = (0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 3)
NAMES = {"relu": "ReLU", "relu6": "ReLU6", "leaky_relu": "LeakyReLU"}
ARMS: dict[str, Arm] = {title: {"activation.name": name} for name, title in NAMES.items()}


def with_failures(table: pd.DataFrame) -> pd.DataFrame:
    """Adds two outcomes of a run, which a diverged one has too.

    `failed_share` is 1 if it diverged or ended at chance; `near_share` is 1 if it came within 5 points of the
    best run of its seed and activation. The mean over the rates is a share of the rates.
    """
    failed = np.where(table["diverged"] == 1, 1.0, (table["accuracy"] < CHANCE).astype(float))
    best = table.groupby(["activation.name", "seed"])["accuracy"].transform("max")
    near = (table["accuracy"] >= best - NEAR).astype(float)
    unknown = table["diverged"].isna()
    return table.assign(
        failed_share=np.where(unknown, np.nan, failed), near_share=np.where(unknown, np.nan, near)
    )


def decide(table: pd.DataFrame) -> Verdict:
    """The bounded twin against ReLU, each at its own learning rate; over all rates beside it."""
    rates = tuned(table, ARMS)
    others = with_failures(judged(table))

    def best(one: str, other: str, **asked: Any) -> Part:
        sides = ({**ARMS[name], RATE: rates[name]} for name in (one, other))
        return contrast(others, "accuracy", *sides, label=f"accuracy, {one} against {other}", **asked)

    def over_all(outcome: str, words: str, one: str, other: str, **asked: Any) -> Part:
        label = f"{words}, {one} against {other}"
        return contrast(others, outcome, ARMS[one], ARMS[other], label=label, **asked)

    return judge(
        best("ReLU6", "ReLU", at_least=0.02),
        also=[
            best("LeakyReLU", "ReLU", at_least=0.02),
            *(
                part
                for one in ("ReLU6", "LeakyReLU")
                for part in (
                    over_all("near_share", "rates that train", one, "ReLU", at_least=0.1),
                    over_all("failed_share", "rates that fail", one, "ReLU", at_most=-0.1),
                    over_all("diverged", "rates that diverge", one, "ReLU", at_most=-0.1),
                )
            ),
        ],
    )


def beside(table: pd.DataFrame) -> str:
    """The learning rates that were chosen, and how many train."""
    others = with_failures(judged(table))
    near = others.groupby("activation.name")["near_share"].mean() * others[RATE].nunique()
    width = ", ".join(f"{title} {near[name]:.1f}" for name, title in NAMES.items())
    count = others[RATE].nunique()
    return f"{chosen(tuned(table, ARMS))} Within 5 points of a seed's best, of {count} rates: {width}."


def figure(table: pd.DataFrame, verdict: Verdict) -> Figure:
    """Accuracy, failures and deaths along the learning rate."""
    return doses(
        with_failures(table),
        verdict,
        along=RATE,
        groups={
            "ReLU": ARMS["ReLU"],
            "ReLU6, bounded": ARMS["ReLU6"],
            "LeakyReLU, unbounded": ARMS["LeakyReLU"],
        },
        outcomes=("accuracy", "failed_share", "dead"),
        title=SENTENCE,
    )


CLAIM = Claim(
    name="unbounded_outputs",
    sentence=SENTENCE,
    source="textbook folklore",
    metric="Test accuracy, each activation at its own learning rate. Beside it, the shares of the nine "
    "rates that train (within 5 points of the best one's accuracy), that fail (diverge, or end below 15 %), "
    "and that diverge.",
    interest="2 points of accuracy; 10 points of the rates.",
    design=f"SGD at 0.01 to 3, the same draws for each activation; seeds 0 to {TUNING - 1} choose one rate "
    "for each by test accuracy, the others judge. ReLU6 is ReLU with a bound and nothing else changed, so "
    "that it tells the bound's part; LeakyReLU is unbounded and has no dead units, so that it tells death's "
    "part. Changed after a first run on three data sets, which asked for the share of failed trainings over "
    "six rates from 0.1 (refuted): a rate that nobody would use counted as much as the best one.",
    comments={
        "refuted": "Diverging and failing are not the same: a bound can turn a divergence into a network "
        "that stays finite and ends at chance. The rows in parentheses tell the two apart, and LeakyReLU, "
        "which cannot die, shows that death also keeps networks from diverging if it diverges more often.",
    },
    sweeps=(
        Sweep(
            (f"optim.lr={','.join(map(str, RATES))}", f"activation={','.join(NAMES)}"),
            budgets={"small": ("seed=range(16)",)},
        ),
    ),
    data_sets=EVERY_SET,
    looked_at=SEEN,
    decide=decide,
    beside=beside,
    figure=figure,
)
