"""Runs trained one after the other, and the same runs as one cohort."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from harness.config import RunSpec, compose, run_folder
from harness.store.folder import RunFolder
from harness.store.tables import read_table
from harness.training.data import load
from harness.training.device import place
from harness.training.loop import TrainResult, train
from harness.training.stacked import train_cohort

SMALL = [
    "record.tensorboard=false",
    "data.subset=200",
    "data.probe_size=50",
    "train.epochs=2",
    "model.width=12",
]
SMALL += ["model.depth=2", "record.census_every=5", "record.early=false"]
TABLES = ("steps", "census", "events")


def made(out: Path, members: Sequence[Sequence[str]], shared: Sequence[str] = ()) -> list[RunSpec]:
    return [compose([f"output={out}", *SMALL, *shared, *own]) for own in members]


def one_by_one(specs: Sequence[RunSpec]) -> list[TrainResult]:
    return [train(spec, load(spec, *place(spec)), RunFolder(run_folder(spec))) for spec in specs]


def together(specs: Sequence[RunSpec], keep: Path) -> list[TrainResult]:
    return train_cohort(specs, [RunFolder(run_folder(spec)) for spec in specs], keep)


def tables(spec: RunSpec) -> dict[str, pd.DataFrame]:
    return {name: read_table(run_folder(spec), name).to_pandas() for name in TABLES}


def parameters(spec: RunSpec) -> dict[str, torch.Tensor]:
    return torch.load(run_folder(spec) / "checkpoint.pt", weights_only=True)["model"]


def assert_alike(one: RunSpec, two: RunSpec, tolerance: float) -> None:
    """The same tables: what is counted exactly, what is measured to a tolerance."""
    for name, a in tables(one).items():
        b = tables(two)[name]
        assert list(a) == list(b)
        assert len(a) == len(b), name
        for column in a:
            x, y = a[column], b[column]
            exact = not pd.api.types.is_float_dtype(x) or column in ("rate", "rate_upper", "epoch", "lr")
            if exact:
                assert x.equals(y), f"{name}.{column}"
            else:
                # the census is stored in float32
                rtol = tolerance if name == "steps" else max(tolerance, 2e-7)
                np.testing.assert_allclose(x, y, rtol=rtol, atol=tolerance, err_msg=f"{name}.{column}")
    p, q = parameters(one), parameters(two)
    assert p.keys() == q.keys()
    for key in p:
        torch.testing.assert_close(p[key], q[key], rtol=tolerance, atol=tolerance, msg=key)


def assert_same(one: RunSpec, two: RunSpec) -> None:
    """The same to the last bit."""
    a, b = tables(one), tables(two)
    for name in TABLES:
        pd.testing.assert_frame_equal(a[name], b[name], check_exact=True)
    assert (run_folder(one) / "checkpoint.pt").exists() == (run_folder(two) / "checkpoint.pt").exists()
    if (run_folder(one) / "checkpoint.pt").exists():
        p, q = parameters(one), parameters(two)
        assert p.keys() == q.keys()
        assert all(torch.equal(p[key], q[key]) for key in p)
