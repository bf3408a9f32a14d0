"""Start trials from the weights of the last healthy census instead of repeating the healthy part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from harness.config import RunSpec
from harness.config.schema import StoredInit
from harness.config.tree import choice
from harness.detector.lifetimes import one_evidence
from harness.detector.states import dead_fraction
from harness.detector.verdict import HEALTHY
from harness.sweeps.job import run_job
from harness.trials.confirm import of_trial


def healthy_start(spec: RunSpec, census: pd.DataFrame, steps: int, folder: Path) -> tuple[RunSpec, int]:
    """Return the rest of the run after its last healthy census, and the step of that census.

    The weights at that step are reproduced once, by training up to it. The seeds of the trials then differ
    only in their batches. Optimizer and schedule start afresh.

    Args:
        spec: the run.
        census: all of its censuses.
        steps: length of the whole run.
        folder: folder of the trials; the weights are saved there.

    Raises:
        ValueError: no census after step 0 had at most a tenth of the units dead, or the last census had.
    """
    parts = one_evidence(census).groupby("step")
    healthy = [int(step) for step, part in parts if dead_fraction(part) <= HEALTHY]  # type: ignore[arg-type]
    last = max(healthy, default=0)
    if not 0 < last < steps:
        when = "to its end" if last else "only before its first step" if healthy else "at no census"
        raise ValueError(f"begin=healthy: the run was healthy {when}. Begin at its start (--from start).")
    path = folder / f"healthy-{last}.pt"
    if not path.is_file():
        from harness.training.checkpoint import NAME
        from harness.training.state_files import read, write

        state = read(run_job(of_trial(spec, last, folder)).path / NAME)["model"]
        write(path, state)
    stored = StoredInit(name="stored", gain=1.0, mean=0.0, path=str(path))
    train = replace(spec.train, max_steps=steps - last)
    return replace(spec, init=stored, bias=choice("bias", "zero"), train=train), last
