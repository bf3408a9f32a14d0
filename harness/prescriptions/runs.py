"""`prescribe` for runs of ours: the cures are trained as short sweeps in the run's own folder."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from harness.config import ConfigError, RunSpec, compose, restore, run_folder
from harness.config.command import overrides_of, place
from harness.prescriptions.cures import Cure, cures, merged
from harness.prescriptions.halving import Round, rounds
from harness.prescriptions.judging import AGAIN, UNTOUCHED
from harness.prescriptions.prescription import Prescription, in_words
from harness.prescriptions.search import Say, search
from harness.store.folder import read_status
from harness.store.runs import Run
from harness.sweeps.cohorts import why_not
from harness.sweeps.confirm import until_median_death
from harness.sweeps.diagnose import diagnose
from harness.sweeps.job import check_jobs
from harness.sweeps.sweep import cores, plan_sweep, run_sweep

FOLDER = "prescribe"
STACKED = 8  # members of a stack that train in the time of one run (see docs/benchmarks.md)
WATCHED = (
    "record=light",
    "record.probe=true",
    "record.early=false",
    "record.evidence=false",
    "record.tensorboard=false",
    "train.stop_when_dead=null",
)


@dataclass(frozen=True)
class _Patient:
    """A run, as far as the trials need it."""

    spec: RunSpec
    words: tuple[str, ...]  # its overrides
    folder: Path  # of the trials
    mean: float  # of its inputs
    chance: float  # accuracy of naming the most frequent class
    tested: int  # held-out inputs
    steps: int
    per_epoch: int  # steps

    @property
    def period(self) -> int:
        """Steps after which its task changes, 0 if never: shorter trials do not see what that does."""
        data = self.spec.data
        return self.per_epoch * max(data.reshuffle_labels_every, data.permute_inputs_every)

    def arm(self, cure: Cure | None, seed: int, steps: int) -> RunSpec:
        changes = cure.words if cure else ()
        words = merged(merged(self.words, changes), (*WATCHED, f"record.census_every={max(1, steps // 4)}"))
        here = (f"train.max_steps={steps}", f"seed={seed}", place(str(self.folder)))
        return compose(merged(words, here))


def prescribe_run(
    run: Run | str | os.PathLike[str], budget: float = 2.0, seeds: int = 3, say: Say | None = None
) -> Prescription:
    """Try the plausible cures of a stored run, and recommend the smallest that works.

    The trials are runs like any other; an interrupted prescription is continued by the same call. What is
    found is written to `prescription.json` in the run's folder.

    Args:
        run: of `open_runs`, or its folder.
        budget: work, in times of the run's own on every core; what trains as a stack counts an eighth.
        seeds: of every arm: the run's own and those that follow.
        say: told of every round.

    Raises:
        FileNotFoundError: there is no run in that folder.
        ValueError: it recorded nothing, cannot be trained again, or the budget is too small.
    """
    found = run if isinstance(run, Run) else Run(Path(run))
    if seeds < 2:
        raise ValueError(f"seeds: expected at least 2, since an interval needs them, but got {seeds}")
    if not budget >= 1:
        raise ValueError(f"budget: expected at least one run's own time, but got {budget:g} of it")
    if found.is_own_loop:
        raise ValueError(
            f"{found.path}: the loop that trained it is not stored. Give harness.prescribe a function that "
            "makes the training: harness.prescribe(make, steps=…)."
        )
    told = diagnose(found)
    if told.label == "none" and found.state != "diverged":
        text = f"Nothing to cure. {told.cause or told}".strip()
        nothing = Prescription("", "none", "", text)
        nothing.write(found.path)
        return nothing
    began = time.monotonic()
    patient = _admit(found)
    candidates, left_out = _possible(patient, cures(patient.spec, told.label, patient.mean, patient.steps))
    least = max(until_median_death(found, patient.steps), 3 * patient.period)
    plan = _plan(patient, len(candidates), seeds, least, budget)
    tried = search(
        candidates,
        plan,
        lambda arms, steps, last: _train(patient, arms, steps, seeds, last),
        told.label,
        say,
        fits=lambda pair: not _possible(patient, [pair])[1],
    )
    error = (patient.chance * (1 - patient.chance) / patient.tested) ** 0.5
    learned = bool(tried.before > patient.chance + 4 * error)
    cure = tried.recommended(learned=learned)
    text = in_words(cure, told.label, tried.table, patient.steps, "accuracy")
    command = _command(patient, tried.cures[cure], found) if cure else ""
    seconds = round(time.monotonic() - began, 1)
    result = Prescription(cure, told.label, command, text, tried.table, left_out, seconds)
    result.write(found.path)
    return result


def _admit(run: Run) -> _Patient:
    import torch

    from harness.training.data import load
    from harness.training.loop import total_steps

    try:
        spec, words = restore(run.config), overrides_of(run.config)
        data = load(spec, torch.device("cpu"), torch.float32)
    except ConfigError as error:
        raise ValueError(f"{run.path}: it cannot be trained again ({error})") from None
    few = range(min(20, data.steps_per_epoch))
    mean = float(torch.stack([data.batch(0, k)[0].mean() for k in few]).mean())
    labels = torch.cat([y for _, y in data.test_batches()])
    chance = float(labels.bincount().max()) / len(labels)
    folder = run.path / FOLDER
    steps = total_steps(spec, data)
    return _Patient(spec, tuple(words), folder, mean, chance, len(labels), steps, data.steps_per_epoch)


def _possible(patient: _Patient, candidates: Sequence[Cure]) -> tuple[list[Cure], dict[str, str]]:
    """The cures that can be trained; of the others, why not."""
    possible, left_out = [], {}
    for cure in candidates:
        try:
            check_jobs([patient.arm(cure, patient.spec.seed, 1)])
            possible.append(cure)
        except ConfigError as error:
            left_out[cure.name] = str(error)
    return possible, left_out


def _plan(patient: _Patient, count: int, seeds: int, least: int, budget: float) -> list[Round]:
    work = budget * cores() * (1 if why_not(patient.spec) else STACKED)
    return rounds(count, seeds, patient.steps, least + least // 4, work)


def _train(patient: _Patient, arms: Sequence[Cure], steps: int, seeds: int, controls: bool) -> pd.DataFrame:
    """One row per arm and seed, as `judging.judged` takes them."""
    own = range(patient.spec.seed, patient.spec.seed + seeds)
    named = {(cure.name, seed): patient.arm(cure, seed, steps) for cure in arms for seed in own}
    named |= {(UNTOUCHED, seed): patient.arm(None, seed, steps) for seed in own}
    if controls:
        named |= {(AGAIN, seed + seeds): patient.arm(None, seed + seeds, steps) for seed in own}
    run_sweep(plan_sweep(list(named.values())))
    rows = []
    for (name, seed), spec in named.items():
        status = read_status(run_folder(spec)) or {}
        final, state = status.get("final") or {}, status.get("state")
        accuracy = final.get("accuracy")
        if state not in ("finished", "diverged") or (accuracy is None and state == "finished"):
            raise ValueError(f"prescribe: {run_folder(spec)} cannot be used ({status.get('error') or state})")
        diverged = state == "diverged"
        scores = (
            {"metric": 0.0, "dead": 1.0} if diverged else {"metric": accuracy, "dead": final["dead_fraction"]}
        )
        rows.append({"cure": name, "seed": seed, **scores, "diverged": diverged})
    return pd.DataFrame(rows).astype({"metric": float, "dead": float})


def _command(patient: _Patient, cure: Cure, run: Run) -> str:
    """The shell's line that trains the run with the cure in it."""
    return shlex.join(["harness", *merged(patient.words, cure.words), place(str(run.path.parent))])
