"""Runs in the store that were never trained: small, with known numbers."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import report_frames as frames

from harness.detector.states import classify
from harness.store.folder import RunFolder
from harness.store.schema import CENSUS, EVENTS, STEPS
from harness.store.writer import TableWriter

EVIL = "<script>alert('x')</script>"


def write_run(
    root: Path,
    name: str,
    *,
    state: str = "finished",
    dead: int = 2,
    config: dict[str, Any] | None = None,
    census: pd.DataFrame | None = None,
    error: str | None = None,
) -> Path:
    """A run of two sites with four units each, of which `dead` have died at step 10.

    Args:
        root: of the sweep.
        name: of the folder.
        state: of the run.
        dead: units that died.
        config: groups beyond the seed.
        census: its history, instead.
        error: of a failed one.
    """
    folder = RunFolder(root / name)
    folder.write_config({"seed": 0, **(config or {})})
    history = history_of(dead) if census is None else census
    steps = np.arange(1, 21)
    loss = 1 / steps
    if state == "diverged":
        loss[-1] = np.nan
    rows = {
        "census": {column: history[column].to_numpy() for column in CENSUS.names},
        "steps": {
            "step": steps,
            "epoch": steps / 10,
            "loss": loss,
            "accuracy": 1 - loss,
            "lr": np.full(20, 0.1),
            "test_loss": np.where(steps % 10 == 0, loss, np.nan),
            "test_accuracy": np.where(steps % 10 == 0, 0.9, np.nan),
        },
        "events": {
            "step": np.array([10]),
            "kind": ["died"],
            "site": [EVIL],
            "units": np.array([dead]),
            "detail": [""],
        },
    }
    for table, schema in (("census", CENSUS), ("steps", STEPS), ("events", EVENTS)):
        writer = TableWriter(folder.path, table)
        if state != "failed":
            writer.append({column: rows[table][column] for column in schema.names})
        writer.finish()
    share = dead / 8
    final = {"accuracy": 0.9 - share / 2, "units": 8, "dead": dead, "revived": 0, "dead_fraction": share}
    final |= {"born_dead_fraction": 0.0, "died_fraction": share}
    facts: dict[str, Any] = {"final": final, "verdict": f"{dead} of 8 units dead."}
    facts = {} if state == "failed" else facts
    folder.write_status(
        state, steps=20, diverged_at=20 if state == "diverged" else None, error=error, **facts
    )
    return folder.path


def history_of(dead: int) -> pd.DataFrame:
    """Censuses of a probe at 0, 10 and 20; `dead` of 8 units are dead from 10 on."""
    rows = []
    for step, unit in product((0, 10, 20), range(8)):
        gone = unit < dead and step >= 10
        rows.append(
            {
                "evidence": "probe",
                "step": step,
                "site": "ab"[unit // 4],
                "unit": unit % 4,
                "n": 200,
                "active": 0 if gone else 20 + 10 * unit,
                "rate": 0.0 if gone else (20 + 10 * unit) / 200,
                "silent_for": 0,
                "non_finite": 0,
                **dict.fromkeys(("mean", "std", "max", "grad_rms", "grad_norm"), np.nan),
            }
        )
    return classify(pd.DataFrame(rows))


def full_history() -> pd.DataFrame:
    """The history of `report_frames`, with the columns that the store wants."""
    return frames.history().assign(silent_for=0, mean=0.0, std=1.0, max=1.0)


def write_sweep(root: Path, seeds: int = 3) -> Path:
    """Two activations × three learning rates × seeds; at the largest rate a run diverged, and one failed.

    The dead share of ReLU is 1/8, 2/8 and 6/8 at 0.01, 0.1 and 1, one more in every second seed; of ELU 0.
    """
    for activation, (k, lr), seed in product(("relu", "elu"), enumerate((0.01, 0.1, 1.0)), range(seeds)):
        state = "finished"
        if lr == 1.0 and activation == "elu" and seed < 2:
            state = ("diverged", "failed")[seed]
        write_run(
            root,
            f"{activation}-lr{lr:g}-s{seed}",
            state=state,
            dead=((1, 2, 6)[k] + seed % 2) if activation == "relu" else 0,
            config={"seed": seed, "activation": {"name": activation}, "optim": {"lr": lr, "nesterov": False}},
            error=f"RuntimeError: {EVIL}" if state == "failed" else None,
        )
    return root
