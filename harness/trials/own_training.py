"""`prescribe` for a user's own code: each trial builds a fresh training and applies a cure from outside."""

from __future__ import annotations

import math
import pickle
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import chain, repeat
from multiprocessing import get_context
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import pandas as pd
import torch
from torch import nn

from harness.attribution.diagnosis import Diagnosis
from harness.attribution.recorder import Recorder
from harness.detector.lifetimes import one_evidence
from harness.detector.states import dead_fraction
from harness.progress import Progress
from harness.recording.batches import global_states_kept, modes_kept
from harness.store.reading import named_line
from harness.sweeps.sweep import cores
from harness.training.randomness import seed_global
from harness.trials.code_cures import BY_HAND, CODE_CURES, CodeCure, by_name
from harness.trials.cures import in_turns
from harness.trials.fresh_training import FreshTraining
from harness.trials.halving import Round, rounds
from harness.trials.judging import AGAIN, UNTOUCHED, difference
from harness.trials.median_death import median_death
from harness.trials.prescription import IDLE, Prescription, in_words
from harness.trials.search import Say, search
from harness.trials.training_parts import (
    Make,
    Parts,
    check_amounts,
    check_make,
    checked,
    checked_loss,
    endless,
    inputs_of,
)


class Trial(NamedTuple):
    """Result of one training; `refused` says why the cure could not be applied ("" if it could)."""

    metric: float
    before: float
    dead: float
    diverged_at: int | None  # step
    history: pd.DataFrame
    diagnosis: Diagnosis | None
    refused: str
    seconds: float = 0.0

    @property
    def diverged(self) -> bool:
        return self.diverged_at is not None


AFTER_CURE = 2**31  # offset, so that the seeds after a cure differ from those given to `make`
TRAINED: WeakValueDictionary[int, nn.Parameter] = WeakValueDictionary()  # parameters of trials, by id
NOTHING = Trial(math.nan, math.nan, math.nan, None, pd.DataFrame(), None, "")


def prescribe_training(
    make: Make,
    steps: int,
    seeds: int = 3,
    budget: float = 16.0,
    workers: int | None = None,
    say: Say | None = None,
) -> Prescription:
    """Try the plausible cures on a training of your own, and recommend the smallest that works.

    Cures are applied from outside, before the first step: learning rates, warm-up, clipping, biases, weights,
    inputs, activations, remedies. `left_out` lists other changes, such as norms and skips, with code.

    Args:
        make: seed → a fresh training (see `Parts`); a tuple of four or five items also works. It is called
            for every trial, and must build a new model each time. The global seeds of torch, numpy and Python
            are set before the call and again after it, so all arms draw the same random numbers.
        steps: length of the whole training.
        seeds: number of seeds per arm, counted from 0.
        budget: total work, in whole trainings per worker.
        workers: number of processes; None: one per core if they can import `make`, otherwise this process.
        say: called with a line of text at the start of every round.

    Raises:
        TypeError: `make` does not return such a tuple, or an argument or a loss is of another type.
        ValueError: a number is out of range, the metric is not finite, or `make` returns a model that it has
            returned before.

    Example:
        >>> import torch, harness
        >>> from torch import nn
        >>> x = torch.randn(256, 4, generator=torch.Generator().manual_seed(0))
        >>> def loss(model, batch):
        ...     return (model(batch)[:, 0] - batch.abs().sum(1)).square().mean()
        >>> def make(seed):
        ...     model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 1))
        ...     nn.init.constant_(model[0].bias, -20.0)
        ...     optimizer = torch.optim.Adam(model.parameters(), 0.03)
        ...     return model, optimizer, x.split(64), loss, lambda model: -float(loss(model, x))
        >>> found = harness.prescribe(make, steps=20, seeds=2, workers=1)
        >>> found.label, "zero bias" in found.cure
        ('bias_init', True)
    """
    check_make(make)
    check_amounts(steps, seeds, budget, workers)
    began = time.monotonic()
    first = _trial(make, 0, steps, "", evidence=True)
    if not first.diverged and not math.isfinite(first.metric):
        came = f"but got {first.metric}"
        raise ValueError(f"the metric: expected a finite number for the training as it is, {came}")
    diagnosis = first.diagnosis
    idle = diagnosis is not None and diagnosis.label == "none" and not first.diverged
    label = "unknown" if diagnosis is None or idle else diagnosis.label
    if diagnosis is not None and idle and _learns(make, steps, first, seeds):
        return Prescription("", "none", "", f"Nothing to cure. {diagnosis.cause or diagnosis}")
    candidates, left_out = _possible(make, label)
    least = median_death(first.history, steps, first.diverged_at) if len(first.history) else steps // 10
    workers = workers or (cores() if _portable(make) else 1)
    plan = rounds(len(candidates), seeds, steps, least + least // 4, budget * workers)
    scale = _scale(first)
    as_it_was: list[Trial] = []  # trials of the unchanged training, from the latest round

    def train(arms: Sequence[CodeCure], one: Round, last: bool) -> pd.DataFrame:
        jobs = [(name, seed) for name in ("", *(cure.name for cure in arms)) for seed in range(one.seeds)]
        jobs += [("", seed + seeds) for seed in range(seeds)] if last else []
        found = _run(make, one.steps, jobs, pool)
        as_it_was[:] = found[:seeds]
        worst = min((t.metric for t in found if math.isfinite(t.metric)), default=0.0)
        left_out.update({name: t.refused for (name, _), t in zip(jobs, found, strict=True) if t.refused})
        rows = []
        for (name, seed), trial in zip(jobs, found, strict=True):
            arm = name or (UNTOUCHED if seed < seeds else AGAIN)
            metric = trial.metric if math.isfinite(trial.metric) and not trial.diverged else worst
            row = {"cure": arm, "seed": seed, "metric": metric, "dead": trial.dead}
            row |= {"diverged": trial.diverged, "seconds": trial.seconds}
            rows += [] if name in left_out else [row]
        return pd.DataFrame(rows)

    with _pool(workers) as pool:
        tried = search(candidates, plan, train, label, say, scale)
    change = pd.Series([t.metric - t.before for t in as_it_was if not t.diverged], dtype=float)
    learned = difference(change, 0 * change).low > 0  # paired by seed
    cure = tried.recommended(learned=learned)
    text = f"{IDLE} " * idle + in_words(cure, label, tried.table, steps)
    command = _code(make, tried.cures[cure], steps) if cure else ""
    seconds = round(time.monotonic() - began, 1)
    return Prescription(cure, label, command, text, tried.table, left_out, seconds)


def _learns(make: Make, steps: int, first: Trial, seeds: int) -> bool:
    """Whether a training gains on the held-out data.

    One that does gains half of the metric's scale, or a quarter of it with every seed (two seeds have a wide
    interval), or something on average over the seeds.
    """
    scale = _scale(first)
    if first.metric - first.before > scale / 2:
        return True
    gains = [t.metric - t.before for t in (first, *(_trial(make, s, steps, "") for s in range(1, seeds)))]
    change = pd.Series(gains, dtype=float)
    sure = len(change) > 1 and change.min() > scale / 4
    return not change.notna().all() or bool(sure) or difference(change, 0 * change).low > 0


def _possible(make: Make, label: str) -> tuple[list[CodeCure], dict[str, str]]:
    """Return the applicable cures, most likely first, and for each other one the reason or the code."""
    families: dict[str, list[CodeCure]] = {}
    left_out = dict(BY_HAND)
    for cure in CODE_CURES.values():
        refused = _trial(make, 0, 0, cure.name).refused
        if refused:
            left_out[cure.name] = refused
        else:
            families.setdefault(min(cure.groups), []).append(cure)
    return in_turns(families.values(), label), left_out


def _pool(workers: int) -> AbstractContextManager[ProcessPoolExecutor | None]:
    """Worker processes, started once for all rounds; None for one worker, which is this process."""
    if workers == 1:
        return nullcontext()
    return ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,))


def _run(
    make: Make, steps: int, jobs: Sequence[tuple[str, int]], pool: ProcessPoolExecutor | None
) -> list[Trial]:
    """Train every job, with a progress display if that takes long."""
    progress, found = Progress(f"prescribe, {steps:,} steps each", len(jobs), "trainings"), []
    names, seeds = zip(*jobs, strict=True)
    each = repeat(make), seeds, repeat(steps), names
    for trial in pool.map(_trial, *each) if pool else map(_trial, *each):
        found.append(trial)
        progress.step()
    progress.close()
    return found


def _trial(make: Make, seed: int, steps: int, cure: str, *, evidence: bool = False) -> Trial:
    """Train once, without changing the global random states; only the trial with evidence may warn."""
    with global_states_kept(), torch.enable_grad(), warnings.catch_warnings():
        if not evidence:
            warnings.simplefilter("ignore")
        seed_global(seed)
        parts = _newly_made(make, seed)
        batches = endless(parts.batches)
        first = next(batches)
        if cure:
            try:
                by_name(cure).apply(_fresh(parts, first, steps))
            except ValueError as error:
                return NOTHING._replace(refused=str(error))
        if not steps:
            return NOTHING
        seed_global(seed + AFTER_CURE)  # a cure may have drawn; from here on all arms draw the same
        began = time.monotonic()
        try:
            trained = _train(parts, chain([first], batches), steps, evidence=evidence)
        except Exception as error:
            if not cure:
                raise
            return NOTHING._replace(refused=f"it failed in training ({named_line(error)})")
        return trained._replace(seconds=time.monotonic() - began)


def _newly_made(make: Make, seed: int) -> Parts:
    """A training that `make` has built.

    Raises:
        ValueError: it trains parameters of an earlier one, which no longer are as they were at first.
    """
    parts = checked(make(seed))
    own = [p for p in parts.model.parameters() if p.requires_grad]
    if any(TRAINED.get(id(p)) is p for p in own):
        raise ValueError(
            "make: expected a new model at every call, but it returned parameters that an earlier trial has "
            "trained: build the model inside of the function"
        )
    TRAINED.update({id(p): p for p in own})
    return parts


def _fresh(parts: Parts, batch: Any, steps: int) -> FreshTraining:
    metric = partial(_measured, parts, []) if parts.metric else None
    return FreshTraining(parts.model, parts.optimizer, inputs_of(parts, batch), steps, metric)


def _code(make: Make, cure: CodeCure, steps: int) -> str:
    """Return the code that applies a cure to this training."""
    with global_states_kept():
        seed_global(0)
        parts = checked(make(0))
        return _fresh(parts, next(endless(parts.batches)), steps).written_out(cure.code)


def _train(parts: Parts, batches: Iterator[Any], steps: int, *, evidence: bool) -> Trial:
    model, optimizer = parts.model, parts.optimizer
    before, losses, diverged_at = _measured(parts, []), [], None
    options: dict[str, Any] = {"optimizer": optimizer, "evidence": True} if evidence else {"gradients": False}
    every = max(1, steps // (40 if evidence else 4))
    diagnosis = None
    with Recorder(model, census_every=every, **options) as recorder:
        for step in range(steps):
            loss = checked_loss(parts, parts.loss(model, next(batches)))
            if loss is not None:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(float(loss.detach()))
                finite = math.isfinite(losses[-1])
            else:
                finite = step < steps - 1 or _finite(model)
            recorder.step(loss=loss if evidence else None)
            if step == 0 and math.isnan(before) and losses:
                before = -losses[0]
            if not finite:
                diverged_at = step + 1
                break
        if steps:
            recorder.census()
    history = recorder.history()
    if evidence and len(history):
        diagnosis = recorder.diagnose()
    last = one_evidence(history) if len(history) else history
    dead = dead_fraction(last[last["step"].eq(last["step"].max())]) if len(last) else math.nan
    dead = 1.0 if diverged_at or not math.isfinite(dead) else dead
    return Trial(
        _measured(parts, losses),
        before,
        dead,
        diverged_at,
        history if evidence else pd.DataFrame(),
        diagnosis,
        "",
    )


def _measured(parts: Parts, losses: list[float]) -> float:
    if parts.metric is None:
        few = losses[-max(1, len(losses) // 10) :]
        return -sum(few) / len(few) if few else math.nan
    with modes_kept(parts.model), torch.no_grad():  # parts may be frozen
        parts.model.eval()
        return float(parts.metric(parts.model))


def _finite(model: nn.Module) -> bool:
    return all(bool(p.isfinite().all()) for p in model.parameters())


def _scale(first: Trial) -> float:
    """Scale of the metric: its size after the unchanged training or its change, whichever is larger."""
    found = [abs(v) for v in (first.metric, first.metric - first.before) if math.isfinite(v)]
    return max([*found, 1e-9])


def _portable(make: Make) -> bool:
    """Whether another process can import `make`."""
    try:
        pickle.dumps(make)
    except Exception:  # a user's class can raise anything
        return False
    return getattr(make, "__module__", "__main__") != "__main__"
