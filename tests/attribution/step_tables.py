"""Scalars of the steps of made-up trainings."""

from __future__ import annotations

import numpy as np
import pandas as pd

T = 200


def quiet(seed: int = 0, steps: int = T) -> pd.DataFrame:
    """A calm training: noise of a few per cent on everything."""
    draw = np.random.default_rng(seed)

    def noisy(level: float) -> np.ndarray:
        return level * np.exp(0.08 * draw.normal(size=steps))

    return pd.DataFrame(
        {
            "step": np.arange(1, steps + 1),
            "input_mean": 0.1 + 0.01 * draw.normal(size=steps),
            "input_rms": 1 + 0.02 * draw.normal(size=steps),
            "written_norm": 0.0,
            "loss": noisy(1.0),
            "grad_norm": noisy(2.0),
            "update_norm": noisy(0.02),
            "weight_norm": 20.0,
            "lr": 0.1,
        }
    )


def at(frame: pd.DataFrame, step: int, **factors: float) -> None:
    """From the named step on (or in it alone, with once=1), columns are multiplied."""
    once = bool(factors.pop("once", 0))
    rows = frame["step"].eq(step) if once else frame["step"].ge(step)
    for name, factor in factors.items():
        frame.loc[rows, name] *= factor


def loss_alone(steps: int = T, *, penalty: bool | None = None) -> pd.DataFrame:
    """A calm training whose outputs were observed, too."""
    frame = quiet(steps=steps)
    draw = np.random.default_rng(9)
    frame["output_rms"] = 3 * np.exp(0.05 * draw.normal(size=steps))
    frame["output_grad_norm"] = 0.1 * np.exp(0.05 * draw.normal(size=steps))
    frame.attrs["loss"] = {} if penalty is None else {"penalty": penalty}
    return frame
