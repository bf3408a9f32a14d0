"""Claims are run: the sweeps of all of them as one sweep, so that runs that claims share are trained once."""

from __future__ import annotations

import hashlib
import inspect
import os
import platform
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from experiments.budgets import specs
from experiments.claim import Claim
from experiments.shelf import Result
from experiments.tables import tidy
from harness.config import RunSpec, run_folder
from harness.store.runs import Run
from harness.sweeps.job import versions
from harness.sweeps.sweep import Sweep, plan_sweep, run_sweep

RUNS = "runs"  # below the output
Teller = Callable[[Sweep, Any], None]
Trial = tuple[Claim, str]  # and the name of the data set; empty: data of the claim's own
Plans = dict[tuple[str, str], list[tuple[str, RunSpec]]]


class FailedRunsError(RuntimeError):
    """Some runs of a claim failed: nothing is judged from the others."""


def planned(trials: Sequence[Trial], budget: str, output: Path) -> Plans:
    """Names of claim and data set → the runs, for the claims that are made of runs.

    Raises:
        ConfigError, ValueError: as `experiments.budgets.specs`.
    """
    return {
        (claim.name, data): specs(claim, budget, output / RUNS, data)
        for claim, data in trials
        if claim.sweeps
    }


def train(plans: Plans) -> Sweep | None:
    """The one sweep of several claims; runs that have a result are not in it. None without any run."""
    every = [spec for plan in plans.values() for _, spec in plan]
    return plan_sweep(every) if every else None


def carry_out(sweep: Sweep | None, workers: int | None = None, tell: Teller | None = None) -> None:
    """Train what is left.

    Raises:
        ConfigError: another sweep is writing to the folder.
        KeyboardInterrupt: after the state has been kept; the same call continues.
    """
    if sweep is not None:
        run_sweep(sweep, workers, tell)


def gather(claim: Claim, plan: Sequence[tuple[str, RunSpec]], budget: str, data: str = "digits") -> Result:
    """The result of a claim on a data set whose runs are done.

    Raises:
        FailedRunsError: runs failed or are not there.
    """
    runs = [(name, Run(run_folder(spec))) for name, spec in plan]
    failed = [run for _, run in runs if run.status.get("state") not in ("finished", "diverged")]
    if failed:
        first = failed[0]
        raise FailedRunsError(
            f"{claim.name} on {data}: {len(failed)} of {len(runs)} runs failed or are not done; the first is "
            f"{first.path}: {first.status.get('error') or first.status.get('state', 'not there')}"
        )
    table = tidy(runs, claim.read)
    once = {run.path: float(run.status.get("seconds") or 0) for _, run in runs}
    return Result(claim.name, budget, table, facts(sum(once.values())) | _data(plan), data=data)


def measured(claim: Claim, budget: str, data: str = "") -> Result:
    """The result of a claim that is measured instead of trained."""
    assert claim.measure is not None
    began = time.monotonic()
    table = claim.measure(budget, data) if data else claim.measure(budget)
    made = facts(time.monotonic() - began) | {"code": code_of(claim)}
    named = {"data": ", ".join(sorted(set(table["data"])))} if "data" in table else {}
    return Result(claim.name, budget, table, made | named, data=data)


def fresh(claim: Claim, result: Result | None) -> bool:
    """Whether what a claim measures was measured by the code as it is."""
    return result is not None and result.facts.get("code") == code_of(claim)


def code_of(claim: Claim) -> str:
    """A digest of the file in which a claim's measure stands."""
    measure: Any = claim.measure
    while isinstance(measure, partial):
        measure = measure.func
    return hashlib.sha256(Path(inspect.getfile(measure)).read_bytes()).hexdigest()[:16]


def facts(seconds: float) -> dict[str, Any]:
    """What a result was made with; seconds are of computation, on one core."""
    return {"seconds": round(seconds, 1), "hardware": hardware(), "versions": versions()}


def hardware() -> str:
    """The machine, in words."""
    name = platform.processor() or platform.machine()
    path = Path("/proc/cpuinfo")
    if path.is_file():
        lines = [line for line in path.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].partition(":")[2].strip() if lines else name
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores"


def _data(plan: Sequence[tuple[str, RunSpec]]) -> dict[str, Any]:
    sets = sorted({_named(spec) for _, spec in plan})
    return {"data": ", ".join(sets)}


def _named(spec: RunSpec) -> str:
    subset = f" ({spec.data.subset:,} images)" if spec.data.subset else ""
    return f"{spec.data.name}{subset}"
