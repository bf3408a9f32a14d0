"""Learning rate × batch size: does the noise of small batches kill?"""

from functools import partial

import pandas as pd

from experiments.claim import Claim, Sweep
from experiments.contrasts import contrast
from experiments.figures import doses
from experiments.verdicts import Verdict, judge

SENTENCE = (
    "The noise of stochastic gradients kills units: small batches and high learning rates let more die."
)
RATES, BATCHES = (0.05, 0.2, 0.4), (8, 32, 128)


def decide(table: pd.DataFrame) -> Verdict:
    """Smallest against largest batch at the higher rates, with the number of steps the same."""

    def part(lr: float):
        return contrast(
            table,
            "dead",
            {"optim.lr": lr, "train.batch_size": BATCHES[0]},
            {"optim.lr": lr, "train.batch_size": BATCHES[-1]},
            label=f"batch {BATCHES[0]} against {BATCHES[-1]}, lr {lr:g}",
            at_least=0.05,
        )

    high, low = ({"optim.lr": lr, "train.batch_size": BATCHES[0]} for lr in (RATES[-1], RATES[0]))
    return judge(
        part(RATES[1]),
        part(RATES[2]),
        also=[
            part(RATES[0]),
            contrast(
                table,
                "dead",
                high,
                low,
                label=f"batch 8, lr {RATES[-1]:g} against {RATES[0]:g}",
                at_least=0.05,
            ),
        ],
    )


CLAIM = Claim(
    name="batch_noise",
    sentence=SENTENCE,
    source="Dufort-Labbé et al. 2024, 2403.07688",
    metric="Dead share on the held-out probe after the same number of steps.",
    interest="5 points of dead share.",
    design="Plain SGD, three learning rates × three batch sizes, 300 steps each, the same initial weights "
    "within a seed. Equal steps, not equal epochs: small batches see fewer inputs here, so that what is "
    "left is noise.",
    sweeps=(
        Sweep(
            (
                f"optim.lr={','.join(map(str, RATES))}",
                f"train.batch_size={','.join(map(str, BATCHES))}",
                "train.epochs=40",
                "train.max_steps=300",
            )
        ),
    ),
    decide=decide,
    figure=partial(
        doses,
        along="train.batch_size",
        groups={f"lr {lr:g}": {"optim.lr": lr} for lr in RATES},
        title=SENTENCE,
    ),
    kind="paper",
)
