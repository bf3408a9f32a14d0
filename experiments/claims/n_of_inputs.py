"""How many units are dead, and on how many inputs one looks."""

from functools import partial

import pandas as pd

from experiments.claim import Claim, Sweep
from experiments.contrasts import contrast, per_seed
from experiments.figures import doses
from experiments.verdicts import Part, Verdict, judge

SENTENCE = "The share of dead units is a property of the network, not of the sample that one looks at."
SIZES = (100, 360, 1_000, 2_000, 10_000)
BIASES = {"zero biases": 0.0, "biases of -0.25": -0.25}
WHEN = {"born_dead": "before", "dead": "after"}  # training
PROBE = "data.probe_size"


def decide(table: pd.DataFrame) -> Verdict:
    """100 held-out inputs against all of them, before and after training."""

    def part(name: str, outcome: str) -> Part:
        few, many = ({PROBE: size, "bias.offset": BIASES[name]} for size in (SIZES[0], SIZES[-1]))
        label = f"100 inputs against all: {name}, {WHEN[outcome]} training"
        return contrast(table, outcome, few, many, label=label, within=0.02)

    return judge(*(part(name, outcome) for name in BIASES for outcome in WHEN))


def curve(table: pd.DataFrame) -> str:
    """The share by n."""
    lines = []
    for name, bias in BIASES.items():
        for outcome, when in WHEN.items():
            shares = {}
            for size in SIZES:
                arm = {PROBE: size, "bias.offset": bias}
                rows = table[(table[PROBE] == size) & (table["bias.offset"] == bias)]
                shares[int(rows["n"].min())] = float(per_seed(table, outcome, arm).mean())
            line = ", ".join(f"{100 * share:.1f} on {n:,}" for n, share in shares.items())
            lines.append(f"{name}, {when} training: {line}")
    return f"Dead share in %, by the number of inputs: {'; '.join(lines)}."


CLAIM = Claim(
    name="n_of_inputs",
    sentence=SENTENCE,
    source="implied wherever a dead share is quoted without its number of inputs",
    metric="Dead share on held-out inputs, before and after training.",
    interest="2 points of dead share.",
    design="The same networks and trainings (SGD at 0.1), looked at on 100, 360, 1,000, 2,000 and 10,000 "
    "held-out inputs, as far as there are so many; biases at 0 and at -0.25. A unit that fires on a share "
    "p of the inputs is silent on n of them with probability (1 - p)^n: every dead share is one of n inputs.",
    sweeps=(Sweep((f"{PROBE}={','.join(map(str, SIZES))}", "bias.offset=0,-0.25", "optim.lr=0.1")),),
    decide=decide,
    beside=curve,
    figure=partial(
        doses,
        along=PROBE,
        groups={name: {"bias.offset": bias} for name, bias in BIASES.items()},
        outcomes=("born_dead", "dead"),
        title=SENTENCE,
    ),
)
