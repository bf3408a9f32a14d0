"""`prescribe` for stored runs: the cures are trained as short sweeps in the run's own folder."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from harness.config import ConfigError, RunSpec, flatten, restore, run_folder, to_mapping
from harness.config.command import overrides_of, place, value_word
from harness.config.ranges import check_together
from harness.config.schema import Mlp
from harness.store.folder import read_status
from harness.store.runs import Run
from harness.sweeps.cohorts import why_not
from harness.sweeps.diagnose import diagnose
from harness.sweeps.job import check_jobs
from harness.sweeps.sweep import cores, plan_sweep, run_sweep
from harness.trials.confirm import input_mean, of_trial
from harness.trials.cures import Cure, cures
from harness.trials.halving import Round, rounds
from harness.trials.healthy_start import healthy_start
from harness.trials.judging import AGAIN, UNTOUCHED
from harness.trials.median_death import median_death
from harness.trials.prescription import IDLE, Prescription, in_words
from harness.trials.search import Say, search

FOLDER = "prescribe"
# Members of a stack that train in the time of one run: small MLPs, small networks of other kinds.
STACKED, STACKED_OTHERS = 6, 2
START = 300  # cost of reading the run and starting the workers, in steps of one run
FILES = 40  # cost of writing a member's files and verdict, in steps of a stack's member
CENSUSES = 4  # censuses of a trial, besides the one before its first step


@dataclass(frozen=True)
class _Subject:
    """What the trials need to know about a run."""

    spec: RunSpec
    folder: Path  # folder of the trials
    seeds: int  # seeds per arm
    chance: float  # accuracy of always predicting the most frequent class
    tested: int  # number of held-out inputs
    steps: int
    per_epoch: int  # steps per epoch

    @property
    def fixed(self) -> int:
        """Cost of a trial besides its steps, in steps: forward passes over held-out inputs, and files."""
        probes = (CENSUSES + 1) * min(self.spec.data.probe_size, self.tested)
        passes = (self.tested + probes) // (3 * self.spec.train.batch_size)
        return passes + (0 if why_not(self.spec) else FILES)

    @property
    def period(self) -> int:
        """Steps between two changes of the task; 0 if it never changes. Shorter trials miss the change."""
        data = self.spec.data
        return self.per_epoch * max(data.reshuffle_labels_every, data.permute_inputs_every)

    def has_learned(self, accuracy: float) -> bool:
        """Whether an accuracy is more than four standard errors above chance."""
        error = (self.chance * (1 - self.chance) / self.tested) ** 0.5
        return accuracy > self.chance + 4 * error

    def arm(self, cure: Cure | None, seed: int, steps: int) -> RunSpec:
        """The specification of a trial."""
        spec = of_trial(cure.apply(self.spec) if cure else self.spec, steps, self.folder)
        record = replace(spec.record, early=False, gradients=False, census_every=max(1, steps // CENSUSES))
        return replace(spec, record=record, seed=seed)


def prescribe_run(
    run: Run | str | os.PathLike[str],
    budget: float = 2.0,
    seeds: int = 3,
    say: Say | None = None,
    begin: str = "start",
) -> Prescription:
    """Try the plausible cures on a stored run, and recommend the smallest that works.

    The trials are ordinary runs; the same call continues an interrupted prescription. The result is written
    to `prescription.json` in the run's folder.

    Args:
        run: a run from `open_runs`, or its folder.
        budget: total work, in runs per core; a run that trains in a stack counts as a sixth.
        seeds: number of seeds per arm: the run's own and the following ones.
        say: called with a line of text at the start of every round.
        begin: "start", or "healthy" to start from the weights of the last census with at most a tenth of the
            units dead, which are reproduced by training. "healthy" leaves out cures of the initialisation and
            of the network.

    Raises:
        FileNotFoundError: there is no run in that folder.
        ValueError: the run recorded nothing, cannot be trained again or was never healthy, or a number is out
            of range.
    """
    found = run if isinstance(run, Run) else Run(Path(run))
    if seeds < 2:
        raise ValueError(f"seeds: expected at least 2, since an interval needs them, but got {seeds}")
    if not budget >= 1:
        raise ValueError(f"budget: expected at least one run's own time, but got {budget:g} of it")
    if begin not in ("start", "healthy"):
        raise ValueError(f"begin: expected start or healthy, but got {begin}")
    if found.is_own_loop:
        raise ValueError(
            f"{found.path}: the loop that trained it is not stored. Give harness.prescribe a function that "
            "makes the training: harness.prescribe(make, steps=…)."
        )
    diagnosis = diagnose(found)
    idle = diagnosis.label == "none" and found.state != "diverged"
    accuracy = found.final.get("accuracy")
    if idle and (accuracy is None or _subject(found, seeds).has_learned(accuracy)):
        text = f"Nothing to cure. {diagnosis.cause or diagnosis}".strip()
        nothing = Prescription("", "none", "", text)
        nothing.write(found.path)
        return nothing
    label = "unknown" if idle else diagnosis.label
    began = time.monotonic()
    subject = _subject(found, seeds)
    gone = 0
    if begin == "healthy":
        spec, gone = healthy_start(subject.spec, found.census, subject.steps, subject.folder)
        subject = replace(subject, spec=spec, steps=subject.steps - gone)
    mean = input_mean(subject.spec)
    named = cures(subject.spec, label, mean, subject.steps)
    if gone:
        named = [cure for cure in named if not cure.groups & {"init", "bias", "model"}]
    candidates, left_out = _possible(subject, named)
    died = median_death(found.census, gone + subject.steps, found.status.get("diverged_at")) - gone
    plan = _plan(subject, len(candidates), max(died, 3 * subject.period), budget)
    tried = search(
        candidates,
        plan,
        lambda arms, one, last: _train(subject, arms, one, left_out, controls=last),
        label,
        say,
        fits=lambda pair: not _possible(subject, [pair])[1],
    )
    cure = tried.recommended(learned=subject.has_learned(tried.before))
    text = f"{IDLE} " * idle + in_words(cure, label, tried.table, subject.steps, "accuracy")
    command = _command(subject.spec, tried.cures[cure].apply(subject.spec), found) if cure else ""
    seconds = round(time.monotonic() - began, 1)
    result = Prescription(cure, label, command, text, tried.table, left_out, seconds)
    result.write(found.path)
    return result


def _subject(run: Run, seeds: int) -> _Subject:
    import torch

    from harness.training.data import load
    from harness.training.step_counts import total_steps

    try:
        spec = restore(run.config)
        overrides_of(run.config)  # the cure has to be a command line
        data = load(spec, torch.device("cpu"), torch.float32)
    except ConfigError as error:
        raise ValueError(f"{run.path}: it cannot be trained again ({error})") from None
    labels = torch.cat([y for _, y in data.test_batches()])
    chance = float(labels.bincount().max()) / len(labels)
    steps = total_steps(spec, data.steps_per_epoch)
    return _Subject(spec, run.path / FOLDER, seeds, chance, len(labels), steps, data.steps_per_epoch)


def _possible(subject: _Subject, candidates: Sequence[Cure]) -> tuple[list[Cure], dict[str, str]]:
    """Return the cures that can be trained, and why each other one cannot."""
    possible, left_out = [], {}
    for cure in candidates:
        try:
            spec = subject.arm(cure, subject.spec.seed, 1)
            check_together(spec)
            check_jobs([spec])
            possible.append(cure)
        except ConfigError as error:
            left_out[cure.name] = str(error)
    return possible, left_out


def _plan(subject: _Subject, count: int, least: int, budget: float) -> list[Round]:
    if not why_not(subject.spec):
        faster = STACKED if isinstance(subject.spec.model, Mlp) else STACKED_OTHERS
        budget = faster * max(1.0, budget - START / subject.steps)
    return rounds(count, subject.seeds, subject.steps, least + least // 4, cores() * budget, subject.fixed)


def _train(
    subject: _Subject, arms: Sequence[Cure], one: Round, left_out: dict[str, str], *, controls: bool
) -> pd.DataFrame:
    """Train one row per arm and seed, as `judging.judged` takes them; cures that fail are left out."""
    own = range(subject.spec.seed, subject.spec.seed + one.seeds)
    named = {(cure.name, seed): subject.arm(cure, seed, one.steps) for cure in arms for seed in own}
    named |= {(UNTOUCHED, seed): subject.arm(None, seed, one.steps) for seed in own}
    if controls:
        others = (seed + subject.seeds for seed in own)
        named |= {(AGAIN, seed): subject.arm(None, seed, one.steps) for seed in others}
    run_sweep(plan_sweep(list(named.values()), most=-(-len(named) // cores())))
    rows = []
    for (name, seed), spec in named.items():
        try:
            rows.append({"cure": name, "seed": seed, **_scores(spec)})
        except ValueError as error:
            if name in (UNTOUCHED, AGAIN):
                raise
            left_out[name] = str(error)
    table = pd.DataFrame(rows).astype({"metric": float, "dead": float})
    return table[~table["cure"].isin(left_out)]


def _scores(spec: RunSpec) -> dict[str, Any]:
    """Return the metric, dead share, divergence and seconds of a trial (for a stack, the member's share)."""
    status = read_status(run_folder(spec)) or {}
    final, state = status.get("final") or {}, status.get("state")
    seconds = float(status.get("seconds") or 0)
    if state == "diverged":
        return {"metric": 0.0, "dead": 1.0, "diverged": True, "seconds": seconds}
    if state != "finished" or final.get("accuracy") is None:
        raise ValueError(f"its run cannot be used ({status.get('error') or state}): {run_folder(spec)}")
    return {
        "metric": final["accuracy"],
        "dead": final["dead_fraction"],
        "diverged": False,
        "seconds": seconds,
    }


def _command(spec: RunSpec, cured: RunSpec, run: Run) -> str:
    """Return the command line that trains the cured run; it names what the cure sets, even at its default."""
    words = overrides_of(to_mapping(cured))
    said = {word.partition("=")[0] for word in words}
    before, after = flatten(to_mapping(spec)), flatten(to_mapping(cured))
    for key, value in after.items():
        key = key.removesuffix(".name")
        if before.get(key, before.get(f"{key}.name")) != value and key not in said:
            words.append(f"{key}={value_word(value)}")
    return shlex.join(["harness", *words, place(str(run.path.parent))])
