"""What sets the learning rate at which half of the units die: the sharpness, or the norm of the inputs."""

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from torch.nn import functional

from experiments.budgets import one_run
from experiments.claim import Claim
from experiments.contrasts import contrast
from experiments.edges import Loss, Setting, bisect, squared
from experiments.figures import arms
from experiments.threads import one_thread
from experiments.units import RATIO
from experiments.verdicts import Part, Verdict, judge

SENTENCE = (
    "The learning rate at which half of the units die is set by the sharpness at initialisation, or by the "
    "norm of the inputs."
)
LOSSES: dict[str, Loss] = {"squared loss": squared, "cross-entropy": functional.cross_entropy}
#: Setting → overrides, and what the inputs are multiplied by.
SETTINGS: dict[str, tuple[tuple[str, ...], float]] = {
    "3 × 64, batches of 32": ((), 1.0),
    "width 16": (("model.width=16",), 1.0),
    "width 128": (("model.width=128",), 1.0),
    "depth 1": (("model.depth=1",), 1.0),
    "depth 6": (("model.depth=6",), 1.0),
    "batches of 8": (("train.batch_size=8",), 1.0),
    "batches of 128": (("train.batch_size=128",), 1.0),
    "inputs × ¼": ((), 0.25),
    "inputs × 4": ((), 4.0),
}
#: Column → the law whose product it is.
LAWS = {"sharpness": "η λ", "norm": "η (‖x‖² + 1)"}
SEEDS = {"toy": 2, "small": 10, "standard": 12, "full": 24}
STEPS = {"toy": 3, "small": 50, "standard": 100, "full": 200}
HALVINGS = {"toy": 2, "small": 7, "standard": 8, "full": 8}
LOW, HIGH, ITERATIONS, INPUTS = 0.002, 20.0, 20, 896


def measure(budget: str, data_set: str) -> pd.DataFrame:
    """One row per seed, loss and setting: logarithms to base 2 of the critical rate and of its products."""
    rows = []
    with one_thread():
        for seed in range(SEEDS[budget]):
            for loss in LOSSES:
                rows += [_row(budget, data_set, seed, loss, name) for name in SETTINGS]
    return pd.DataFrame(rows)


def _row(budget: str, data_set: str, seed: int, loss: str, name: str) -> dict[str, Any]:
    words, scale = SETTINGS[name]
    fixed = (f"data.subset={INPUTS}", "train.batch_size=32")
    spec = one_run((*fixed, *words), budget, data_set, seed)
    setting = Setting(spec, scale, LOSSES[loss])
    rate = bisect(lambda lr: setting.dead(lr, STEPS[budget]), LOW, HIGH, HALVINGS[budget])
    norm = float(setting.x.square().sum(1).mean()) + 1
    sharpness = setting.sharpness(ITERATIONS)
    products = np.array([rate, rate * sharpness, rate * norm])
    with np.errstate(invalid="ignore"):  # no edge in the bracket, or a Hessian that is mostly negative: NaN
        logs = np.log2(products)
    row = {"seed": seed, "loss": loss, "setting": name, "n": INPUTS}
    return row | dict(zip(("log2_rate", "log2_sharpness", "log2_norm"), logs, strict=True))


def decide(table: pd.DataFrame) -> Verdict:
    """For each loss and law, the spread of the product over the settings against that of the rate itself."""
    inputs = [name for name, (_, scale) in SETTINGS.items() if scale != 1]
    every, same = _spreads(table), _spreads(table[~table["setting"].isin(inputs)])

    def part(spreads: pd.DataFrame, loss: str, law: str, words: str = "") -> Part:
        sides = ({"loss": loss, "of": of} for of in (law, "rate"))
        label = f"{loss}, {LAWS[law]}{words}"
        return contrast(spreads, "spread", *sides, label=label, unit=RATIO, at_most=-float(np.log(2)))

    pairs = [(loss, law) for loss in LOSSES for law in LAWS]
    return judge(
        *(part(every, *pair) for pair in pairs),
        also=[part(same, loss, "sharpness", ", inputs as they are") for loss in LOSSES],
    )


def _spreads(table: pd.DataFrame) -> pd.DataFrame:
    """Largest over smallest, over the settings: one row per seed, loss and product (`of`); NaN if one is."""
    rows = []
    for (seed, loss), mine in table.groupby(["seed", "loss"], sort=False):
        for of in ("rate", *LAWS):
            values = mine[f"log2_{of}"].to_numpy(float)
            rows.append((seed, loss, of, 2.0 ** (values.max() - values.min())))
    return pd.DataFrame(rows, columns=pd.Index(["seed", "loss", "of", "spread"]))


def thresholds_text(table: pd.DataFrame) -> str:
    """The spreads themselves: medians over the seeds."""
    spreads = _spreads(table).groupby(["loss", "of"])["spread"].median()
    names = {"rate": "η", **LAWS}
    each = [
        f"{loss}: {', '.join(f'{name} ×{spreads[loss, of]:.1f}' for of, name in names.items())}"
        for loss in LOSSES
    ]
    return f"Largest over smallest, over the settings: {'; '.join(each)}."


CLAIM = Claim(
    name="edge_law",
    sentence=SENTENCE,
    source="the stability bound lr < 2 / sharpness (Cohen et al. 2021, 2103.00065); the threshold of claim "
    "one_step_kill",
    metric="Over nine settings, the largest over the smallest critical rate η, of η λ and of η (‖x‖² + 1): "
    "λ is the greatest eigenvalue of the loss's Hessian at initialisation, ‖x‖² the mean over the training "
    "inputs.",
    interest="A law makes the spread of the critical rate at least twice as narrow.",
    design="Plain SGD, 50 steps; the critical rate, at which half of the hidden units are closed on all "
    f"{INPUTS} training inputs (or the training diverges), by bisection. Width, depth, batch size and the "
    "scale of the inputs are changed one at a time. Two losses: the bounds are derived for squared loss, "
    "networks are trained with cross-entropy. Losses and steps were chosen on seeds 100 to 103.",
    measure=measure,
    data_sets=("digits", "mnist", "fashion_mnist"),
    decide=decide,
    beside=thresholds_text,
    comments={
        "mixed": "Under squared loss both laws follow the scale of the inputs; at one scale η λ varies as "
        "much as η. Cross-entropy bounds the gradient whatever the outputs are: a loss that is sharp at "
        "first does not kill.",
    },
    figure=partial(
        arms,
        arms={f"{loss}, {name}": {"loss": loss, "setting": name} for loss in LOSSES for name in SETTINGS},
        outcomes=("log2_rate", *(f"log2_{law}" for law in LAWS)),
        title=SENTENCE,
    ),
    kind="paper",
)
