"""Rister & Rubin 2020: sign flipping keeps at least 2^-k of the points alive in k layers."""

from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from experiments.paper import AGREES, DIFFERS, Row, share
from harness.config import compose
from harness.training.models import build
from harness.training.sign_flip import sign_flip

WIDTHS, DEPTH, POINTS, FEATURES, SEEDS = (1, 2, 4), 10, 1024, 8, 100


def measure(root: Path) -> pd.DataFrame:
    """Share of points alive after every layer, plain and flipped, in random networks without biases."""
    found = []
    for width in WIDTHS:
        for seed in range(SEEDS):
            torch.manual_seed(seed)
            x = torch.randn(POINTS, FEATURES)
            model = build(compose([f"model.depth={DEPTH}", f"model.width={width}"]), (FEATURES,), 1)
            linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
            for layer in linears:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
            for flipped in (False, True):
                if flipped:
                    sign_flip(model, x)
                shares = enumerate(alive(linears[:-1], x), 1)
                found += [(seed, width, flipped, layer, part) for layer, part in shares]
    return pd.DataFrame(found, columns=pd.Index(["seed", "width", "flipped", "layer", "alive_share"]))


@torch.no_grad()
def alive(linears: list[nn.Linear], x: Tensor) -> list[float]:
    """After each layer the share of points that open some gate in it."""
    shares = []
    for layer in linears:
        x = layer(x).relu()
        shares.append(float((x > 0).any(1).float().mean()))
    return shares


def decide(table: pd.DataFrame) -> str:
    """The bound is a guarantee: one network below it would be a counterexample."""
    flipped = table[table["flipped"]]
    return AGREES if (flipped["alive_share"] >= 0.5 ** flipped["layer"]).all() else DIFFERS


def tell(table: pd.DataFrame) -> str:
    flipped = table[table["flipped"]]
    least = float((flipped["alive_share"] * 2.0 ** flipped["layer"]).min())
    end = {"layer": DEPTH, "width": WIDTHS[0]}
    return (
        f"least share over the bound, all networks and k: {least:.2f}; alive at width {WIDTHS[0]}, "
        f"k = {DEPTH}: flipped {share(table, 'alive_share', flipped=True, **end)}, "
        f"plain {share(table, 'alive_share', flipped=False, **end)}"
    )


ROWS = (
    Row(
        name="rister_2020",
        source="Rister & Rubin 2020, 2007.06192",
        read="abstract",
        theirs="sign flipping leaves at least 2^-k of the data points alive in k layers",
        setting=f"{SEEDS} He-initialised networks each of widths {', '.join(map(str, WIDTHS))}, "
        f"{DEPTH} hidden "
        f"layers, zero biases, {POINTS:,} points of N(0, I) in {FEATURES} dimensions; a point is alive in k "
        "layers if it opens a gate in each. `init=sign_flip`'s own function. A guarantee has no interval: "
        "every network and every k is held against it.",
        measure=measure,
        tell=tell,
        decide=decide,
    ),
)
