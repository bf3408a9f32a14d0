"""Dead units against depth at initialisation, with the law of wide networks beside the simulation."""

from functools import partial

import numpy as np
import pandas as pd
import torch
from scipy.integrate import quad
from scipy.stats import norm

from experiments.claim import Claim
from experiments.contrasts import level
from experiments.figures import doses
from experiments.verdicts import Verdict, judge

SENTENCE = "At initialisation the share of dead units grows with depth, and a closed form tells it."
DEPTH, START = 20, 0.4
INPUTS = {"toy": 100, "small": 1000, "standard": 1000, "full": 1000}
WIDTH = {"toy": 128, "small": 1024, "standard": 2048, "full": 4096}
SEEDS = {"toy": 2, "small": 20, "standard": 16, "full": 32}


def cosine(rho: float) -> float:
    """Cosine of two inputs after a wide He-initialised ReLU layer (Cho & Saul 2009)."""
    return (np.sqrt(1 - rho**2) + rho * (np.pi - np.arccos(rho))) / np.pi


def dead_share(rho: float, n: int) -> float:
    """P(a unit is closed on n inputs of which all pairs have cosine rho), an orthant probability."""
    a = np.sqrt(rho / (1 - rho))
    value, _ = quad(
        lambda z: norm.pdf(z) * norm.cdf(-z * a) ** n, -12, 12, points=[-6, -4, -3, -2], limit=400
    )
    return float(value)


def law(n: int) -> np.ndarray:
    """Dead share of the layers 1 … DEPTH."""
    shares, rho = [], START
    for _ in range(DEPTH):
        shares.append(dead_share(rho, n))
        rho = cosine(rho)
    return np.array(shares)


def measure(budget: str) -> pd.DataFrame:
    """One wide random network per seed on inputs whose pairs have the starting cosine."""
    n, width = INPUTS[budget], WIDTH[budget]
    expected = law(n)
    rows = []
    for seed in range(SEEDS[budget]):
        draw = torch.Generator().manual_seed(seed)
        # orthonormal directions, so that all pairs have exactly this cosine
        basis = torch.linalg.qr(torch.randn(n + 1, n + 1, generator=draw)).Q
        x = START**0.5 * basis[:1] + (1 - START) ** 0.5 * basis[1:]
        for layer in range(1, DEPTH + 1):
            z = x @ torch.randn(x.shape[1], width, generator=draw) * (2 / x.shape[1]) ** 0.5
            dead = float((z <= 0).all(0).float().mean())
            on = float((z > 0).all(0).float().mean())
            rate = float((z > 0).float().mean())
            rows.append((seed, layer, n, dead, on, rate, dead - expected[layer - 1]))
            x = torch.relu(z)
    return pd.DataFrame(
        rows, columns=pd.Index(["seed", "layer", "n", "dead_share", "always_on", "rate", "off"])
    )


def decide(table: pd.DataFrame) -> Verdict:
    """Layer 20 against none, and the law at four depths."""
    return judge(
        level(table, "dead_share", {"layer": DEPTH}, 0.0, label=f"dead in layer {DEPTH}", at_least=0.1),
        *(
            level(
                table, "off", {"layer": layer}, 0.0, label=f"layer {layer}, simulation less law", within=0.03
            )
            for layer in (5, 10, 20)
        ),
        also=[
            level(
                table,
                "rate",
                {"layer": DEPTH},
                0.5,
                label=f"activation rate of layer {DEPTH} less ½",
                within=0.05,
            )
        ],
    )


CLAIM = Claim(
    name="depth_law",
    sentence=SENTENCE,
    source="Lu et al. 2019, 1903.06733; the cosine map of Cho & Saul 2009",
    metric="Share of units closed on all of 1,000 inputs, by layer, before any training.",
    interest="10 points at layer 20; the law is to be met within 3 points.",
    design="One wide He-initialised network per seed, zero biases, inputs whose pairs all have cosine 0.4. "
    "The mean activation rate stays at one half at every depth: sparsity does not tell death.",
    measure=measure,
    decide=decide,
    figure=partial(
        doses,
        along="layer",
        outcomes=("dead_share", "rate"),
        overlay={"law of wide networks": (np.arange(1, DEPTH + 1), law(1000))},
        title=SENTENCE,
        log=False,
    ),
    kind="paper",
)
