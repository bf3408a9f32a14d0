"""L2 kills under Adam with batch norm; leave out one of the three, and it does not."""

from functools import partial
from typing import Any

import pandas as pd

from experiments.claim import Claim, Sweep
from experiments.contrasts import Arm, contrast
from experiments.figures import arms
from experiments.verdicts import Part, Verdict, judge

SENTENCE = (
    "L2 regularisation kills ReLU units under Adam with batch norm; under SGD, with decoupled decay, or "
    "without batch norm it does not."
)
L2, STRONG = 5e-4, 0.1
#: Optimizer → name and learning rate.
OPTIMIZERS = {"momentum": ("Momentum", 0.1), "adam": ("Adam", 0.01), "adamw": ("AdamW", 0.01)}
NORMS = {"batch": "batch norm", "none": "no norm"}
#: The cell that is said to kill, and those that lack one of the three.
KILLS = ("adam", "batch")
SPARES = (("adam", "none"), ("adamw", "batch"), ("momentum", "batch"))


def decide(table: pd.DataFrame) -> Verdict:
    """In each cell of optimizer and norm, L2 against none; beside it what AdamW does with a strong decay."""

    def part(
        cell: tuple[str, str], outcome: str = "dead", words: str = "", decay: float = L2, **asked: Any
    ) -> Part:
        sides = (_arm(*cell, value) for value in (decay, 0))
        return contrast(table, outcome, *sides, label=f"{_name(*cell)}{words}", **asked)

    others = [(name, norm) for norm in NORMS for name in OPTIMIZERS if (name, norm) not in (KILLS, *SPARES)]
    strong = f", decay {STRONG:g}"
    return judge(
        part(KILLS, at_least=0.1),
        *(part(cell, within=0.1) for cell in SPARES),
        also=[
            *(part(cell, within=0.1) for cell in others),
            part(("adamw", "batch"), words=strong, decay=STRONG, at_least=0.1),
            part(("adamw", "none"), words=strong, decay=STRONG, at_least=0.1),
            part(KILLS, "accuracy", ": accuracy", at_most=-0.02),
        ],
    )


def _arm(optimizer: str, norm: str, decay: float) -> Arm:
    return {"optim.name": optimizer, "model.norm": norm, "optim.weight_decay": decay}


def _name(optimizer: str, norm: str) -> str:
    return f"{OPTIMIZERS[optimizer][0]}, {NORMS[norm]}"


def _decays(optimizer: str) -> tuple[float, ...]:
    return (0, L2, STRONG) if optimizer == "adamw" else (0, L2)


CLAIM = Claim(
    name="decay_norm_optimizer",
    sentence=SENTENCE,
    source="Mehta et al. 2019, 1811.12495",
    metric="Dead share on the held-out probe after training, in evaluation mode, with test accuracy.",
    interest="10 points of dead share; where nothing is said to happen, a change within ±10 points.",
    design=f"Three optimizers × batch norm or none × decay of 0 or {L2:g}, a 3 × 64 MLP, 200 images, 3,000 "
    "steps in batches of 32, ten seeds. Decay adds to the gradient under SGD and Adam (L2) and shrinks the "
    f"weights by lr × decay under AdamW, which is far less: beside it AdamW has {STRONG:g} as well. Learning "
    "rates and length were chosen on seeds 100 to 103, so that few units die with batch norm and no "
    "decay; the training set is small so that the loss, whose gradient holds L2 in check, vanishes soon.",
    sweeps=tuple(
        Sweep(
            (
                f"optim={optimizer}",
                f"optim.lr={lr}",
                f"optim.weight_decay={','.join(map(str, _decays(optimizer)))}",
                "model.norm=none,batch",
                "data.subset=200",
                "train.batch_size=32",
                "train.epochs=1000",
                "train.max_steps=3000",
                "record.gradients=false",
                "record.census_every=500",
            ),
            optimizer,
            budgets={"small": ("seed=range(10)",)},
        )
        for optimizer, (_, lr) in OPTIMIZERS.items()
    ),
    decide=decide,
    figure=partial(
        arms,
        arms={
            f"{_name(optimizer, norm)}, {decay:g}": _arm(optimizer, norm, decay)
            for norm in NORMS
            for optimizer in OPTIMIZERS
            for decay in _decays(optimizer)
        },
        title=SENTENCE,
    ),
    kind="paper",
)
