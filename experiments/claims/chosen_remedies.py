"""A remedy that the diagnosis chooses, against fixed ones, over faults of different kinds."""

from functools import partial

import pandas as pd

from experiments.claim import Claim, Sweep
from experiments.contrasts import contrast
from experiments.figures import arms
from experiments.verdicts import Part, Verdict, judge

SENTENCE = "A remedy that is chosen by the diagnosis does better than any fixed one, whatever the fault."
#: Fault → the run that has it.
FAULTS: dict[str, tuple[str, ...]] = {
    "low biases": ("bias.offset=-2", "optim.lr=0.1"),
    "negative weights": ("init.mean=-1", "optim=adam", "optim.lr=0.003"),
    "off-centre inputs": ("data.shift=5", "optim=adam", "optim.lr=0.01"),
    "Adam too fast": ("optim=adam", "optim.lr=0.1"),
    "heavy decay": ("optim.lr=0.1", "optim.weight_decay=0.1"),
    "permuted inputs": ("data.permute_inputs_every=2", "optim=adam", "optim.lr=0.01"),
    "none": ("optim.lr=0.1",),
}
FIXED = ("redo", "bias_lift", "leaky_swap")
CHOSEN = "auto"
#: The table of acts was made with seed 0.
SEEDS = {
    "small": ("seed=range(100,112)",),
    "standard": ("seed=range(100,116)",),
    "full": ("seed=range(100,132)",),
}


def decide(table: pd.DataFrame) -> Verdict:
    """Chosen against each fixed remedy, over all faults; fault by fault beside it."""

    def part(other: str, fault: str = "", outcome: str = "accuracy") -> Part:
        of = {"sweep": fault} if fault else {}
        sides = ({"remedy.name": name, **of} for name in (CHOSEN, other))
        said = f"{'dead' if outcome == 'dead' else 'accuracy'}, auto against {other}"
        asked = {"at_most": -0.05} if outcome == "dead" else {"at_least": 0.05}
        return contrast(table, outcome, *sides, label=f"{said}, {fault}" if fault else said, **asked)

    return judge(
        *(part(other) for other in FIXED),
        also=[
            part("none"),
            *(part(other, outcome="dead") for other in (*FIXED, "none")),
            *(part(other, fault) for fault in FAULTS for other in FIXED),
        ],
    )


CLAIM = Claim(
    name="chosen_remedies",
    sentence=SENTENCE,
    source="this project",
    metric="Test accuracy after training, over all faults; dead share on the held-out probe beside it.",
    interest="5 points of test accuracy.",
    design="Faults that kill units, each by another cause, and a run without one; each without a remedy, with "
    "one of three fixed ones every 100 steps, and with what the diagnosis chooses (`remedy=auto`). The same "
    "initial weights and batches within a seed. The table from causes to acts was made on faults of these kinds, with one seed "
    "that is not among those here: this is its confirmation on other draws, not on other faults.",
    sweeps=tuple(
        Sweep((f"remedy=none,{','.join(FIXED)},{CHOSEN}", *words), fault, SEEDS)
        for fault, words in FAULTS.items()
    ),
    decide=decide,
    figure=partial(
        arms,
        arms={name: {"remedy.name": name} for name in ("none", *FIXED, CHOSEN)},
        outcomes=("accuracy", "dead"),
        title=SENTENCE,
    ),
)
