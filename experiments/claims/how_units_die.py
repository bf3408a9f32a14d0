"""How units die: by the kick of one step, by drifting over many, or by what moves upstream."""

from functools import partial

import pandas as pd
import torch
from torch.nn import functional

from experiments.budgets import SEEDS, one_run
from experiments.claim import Claim
from experiments.claims.dead_units_cost import hidden
from experiments.contrasts import level
from experiments.falls import Trace, deaths, follow
from experiments.figures import arms
from experiments.threads import one_thread
from experiments.verdicts import Part, Verdict, judge
from harness.config import RunSpec
from harness.training.data import load
from harness.training.initialisation import initialise
from harness.training.models import build
from harness.training.optimisation import make_optimizer

SENTENCE = "A single large gradient step kills a unit."
#: Arm → optimizer and learning rate: the high ones of claim high_learning_rate, and a lower one beside.
RATES = {"SGD, lr 1": ("sgd", 1.0), "Adam, lr 0.03": ("adam", 0.03), "Adam, lr 0.003": ("adam", 0.003)}
HIGH = ("SGD, lr 1", "Adam, lr 0.03")
STEPS = {"toy": 20, "small": 310, "standard": 310, "full": 620}
INPUTS = 992  # 31 batches of 32
FIRST, ABOVE, ALL = "layer 1", "layers above", "all layers"
KINDS = ("kick", "drift", "upstream")


def measure(budget: str, data_set: str) -> pd.DataFrame:
    """One row per seed, arm and place: how many units died, and the share of each kind of death."""
    rows = []
    with one_thread():
        for seed in range(SEEDS[budget]):
            for arm, (optimizer, lr) in RATES.items():
                words = (f"optim={optimizer}", f"optim.lr={lr}", f"data.subset={INPUTS}")
                spec = one_run((*words, "train.batch_size=32"), budget, data_set, seed)
                found = [deaths(trace) for trace in train(spec, STEPS[budget])]
                for place, part in ((FIRST, found[:1]), (ABOVE, found[1:]), (ALL, found)):
                    row = {"seed": seed, "arm": arm, "place": place, "n": INPUTS}
                    rows.append(row | summary(pd.concat(part)))
    return pd.DataFrame(rows)


def train(spec: RunSpec, steps: int) -> list[Trace]:
    """A run's training, every unit followed on all training inputs."""
    data = load(spec, torch.device("cpu"), torch.float32)
    model = build(spec, data.shape, data.classes)
    initialise(model, spec)
    optimizer = make_optimizer(spec, model)
    x = torch.cat([data.batch(0, k)[0] for k in range(data.steps_per_epoch)]).flatten(1)

    def step(number: int) -> None:
        batch, y = data.batch(*divmod(number, data.steps_per_epoch))
        optimizer.zero_grad()
        functional.cross_entropy(model(batch), y).backward()
        optimizer.step()

    return follow(hidden(model), x, step, steps)


def summary(died: pd.DataFrame) -> dict[str, float]:
    """Shares among the units that died; NaN where none did."""
    shares = {f"{kind}_share": float((died["kind"] == kind).mean()) for kind in KINDS}
    jumps = float(died["jump"].astype(float).mean())
    return {
        "deaths": len(died),
        **shares,
        "jump_share": jumps,
        "steps_of_fall": float(died["length"].median()),
    }


def decide(table: pd.DataFrame) -> Verdict:
    """Whether most deaths are kicks, for each optimizer in the first layer and above it."""

    def part(arm: str, place: str, outcome: str = "kick_share", words: str = "") -> Part:
        label = f"{arm}, {place}{words}, less ½"
        return level(table, outcome, {"arm": arm, "place": place}, 0.5, label=label, at_least=0.0)

    low = next(arm for arm in RATES if arm not in HIGH)
    return judge(
        *(part(arm, place) for arm in HIGH for place in (FIRST, ABOVE)),
        also=[
            *(part(arm, ALL) for arm in HIGH),
            part(low, ALL),
            *(part(arm, ALL, "jump_share", ": one step, by any cause") for arm in RATES),
        ],
    )


def falls(table: pd.DataFrame) -> str:
    """How many units died and how long they fell, per arm."""
    rows = table[table["place"] == ALL].groupby("arm", sort=False)
    lines = [
        f"{arm}: {mine['deaths'].mean():.0f} units of 192 died, the median fall took "
        f"{mine['steps_of_fall'].median():g} steps"
        for arm, mine in rows
    ]
    return f"{'; '.join(lines)}."


CLAIM = Claim(
    name="how_units_die",
    sentence=SENTENCE,
    source="CS231n (“a large gradient flowing through a ReLU neuron could cause the weights to update in "
    "such a way that the neuron will never activate on any datapoint again”)",
    metric="Among the units that die and stay dead, the share of kicks: deaths in which the change of the "
    "unit's own weights and bias in one step is more than half of the way from its typical level to 0, "
    "and moved it more than what is upstream did. The level is the greatest pre-activation over all training "
    "inputs; terms are defined in `experiments/falls.py`.",
    interest="Half of the deaths.",
    design=f"A 3 × 64 MLP on {INPUTS} images, 310 steps in batches of 32, at the learning rates that claim "
    "high_learning_rate calls high. After every step all units are looked at on all training "
    "inputs, and the "
    "change is split into the unit's own part and that of its inputs. The first layer, whose inputs are "
    "fixed, is judged apart from those above. A lower rate of Adam goes along. The split by layer was fixed "
    "after a rehearsal on seeds 100 to 102.",
    measure=measure,
    data_sets=("digits", "mnist", "fashion_mnist"),
    comments={
        "mixed": "At SGD's high rate nearly all units go down in one step, but above the first layer it is "
        "their inputs that the step moves, more than their own weights.",
    },
    decide=decide,
    beside=falls,
    figure=partial(
        arms,
        arms={f"{arm}, {place}": {"arm": arm, "place": place} for arm in RATES for place in (FIRST, ABOVE)},
        outcomes=tuple(f"{kind}_share" for kind in KINDS),
        title=SENTENCE,
    ),
)
