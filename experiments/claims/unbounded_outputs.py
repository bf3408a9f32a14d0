"""ReLU's unbounded outputs make training unstable."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.claim import Claim, Sweep
from experiments.contrasts import contrast
from experiments.figures import doses
from experiments.verdicts import Part, Verdict, judge

SENTENCE = "ReLU's outputs are unbounded, which makes training unstable; a bound on them helps."
CHANCE = 0.2  # an accuracy below this is no training
GROUPS = {"ReLU": "relu", "ReLU6, bounded": "relu6", "LeakyReLU, unbounded": "leaky_relu"}


def with_failures(table: pd.DataFrame) -> pd.DataFrame:
    """Adds `failed_share`: 1 for a run that diverged or ended at chance, 0 for one that learned."""
    failed = np.where(table["diverged"] == 1, 1.0, (table["accuracy"] < CHANCE).astype(float))
    return table.assign(failed_share=np.where(table["diverged"].isna(), np.nan, failed))


def decide(table: pd.DataFrame) -> Verdict:
    """ReLU against its bounded twin, over the whole range of learning rates."""
    table = with_failures(table)

    def part(other: str, outcome: str, label: str, **asked: Any) -> Part:
        return contrast(
            table, outcome, {"activation.name": "relu"}, {"activation.name": other}, label=label, **asked
        )

    return judge(
        part("relu6", "failed_share", "failed trainings, ReLU against ReLU6", at_least=0.1),
        also=[
            part("relu6", "diverged", "diverged, ReLU against ReLU6", at_least=0.1),
            part("leaky_relu", "failed_share", "failed, ReLU against LeakyReLU", at_least=0.1),
            part("leaky_relu", "diverged", "diverged, ReLU against LeakyReLU", at_least=0.1),
        ],
    )


def figure(table: pd.DataFrame, verdict: Verdict) -> Figure:
    """Failures, deaths and accuracy along the learning rate."""
    groups: Mapping[str, Mapping[str, str]] = {name: {"activation.name": one} for name, one in GROUPS.items()}
    return doses(
        with_failures(table),
        verdict,
        along="optim.lr",
        groups=groups,
        outcomes=("failed_share", "dead", "accuracy"),
        title=SENTENCE,
    )


CLAIM = Claim(
    name="unbounded_outputs",
    sentence=SENTENCE,
    source="textbook folklore",
    metric="Share of trainings that fail (diverge, or end below 20 % test accuracy), over six learning "
    "rates.",
    interest="10 points of failed trainings.",
    design="SGD at 0.1 to 5, the same draws for each activation. ReLU6 is ReLU with a bound and nothing "
    "else changed, so that it tells the bound's part; LeakyReLU is unbounded and has no dead units, so "
    "that it tells death's part.",
    comments={
        "refuted": "Diverging and failing are not the same: a bound can turn a divergence into a network "
        "that stays finite and ends at chance. The rows in parentheses tell the two apart, and LeakyReLU, "
        "which cannot die, shows that death also keeps networks from diverging if it diverges more often.",
    },
    sweeps=(Sweep(("optim.lr=0.1,0.3,1,2,3,5", "activation=relu,relu6,leaky_relu")),),
    decide=decide,
    figure=figure,
)
