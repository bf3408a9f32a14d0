"""One run, from its specification to a result on disk."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

from harness.attribution.diagnosis import diagnose
from harness.attribution.recorder import Recorder
from harness.config import RunSpec
from harness.config.schema import Auto, CustomModel, Dtype
from harness.detector.states import Thresholds
from harness.detector.transitions import Transitions
from harness.detector.verdict import last_census
from harness.remedies import RemedyEvent
from harness.remedies.auto import dead_share
from harness.store.evidence import write_evidence
from harness.store.folder import RunFolder
from harness.store.tables import read_table
from harness.training import checkpoint
from harness.training.data import Dataset
from harness.training.device import place, reproducible
from harness.training.initialisation import initialise
from harness.training.interrupts import DeferredInterrupts
from harness.training.models import build
from harness.training.optimisation import factor, make_optimizer, set_learning_rate
from harness.training.randomness import stream
from harness.training.remedy_runner import RemedyRunner, Seen
from harness.training.run_logger import Listener, RunLogger
from harness.training.step_counts import census_steps_of, is_tested, total_steps
from harness.training.stopping import stop_reason
from harness.training.tasks import new_tasks, task

DEVICE_LOOK = 25  # steps between two checks of the loss on a GPU, since each check synchronises


@dataclass(frozen=True)
class TrainResult:
    """How a training ended.

    Attributes:
        steps: completed steps.
        diverged_at: step of the first non-finite loss or parameter, if any.
        stopped: why training stopped early; "" if it did not.
        census_seconds: time that this process spent on censuses.
    """

    steps: int
    diverged_at: int | None
    stopped: str = ""
    census_seconds: float = field(default=0.0, compare=False)


def train(
    spec: RunSpec,
    data: Dataset,
    folder: RunFolder,
    listeners: Sequence[Listener] = (),
    *,
    evidence: bool = False,
    model: nn.Module | None = None,
) -> TrainResult:
    """Train one run, or continue it from its checkpoint, and write its tables to disk.

    Args:
        spec: the run.
        data: result of `harness.training.data.load` for this spec.
        folder: the run's folder; a checkpoint in it is continued.
        listeners: views that are notified of new rows.
        evidence: whether to gather evidence for a diagnosis and write it to the folder.
        model: result of `harness.training.models.build` for this spec; None: built here.

    Raises:
        ConfigError: the model cannot read the data, or similar.
        KeyboardInterrupt: between two steps, after a checkpoint has been written.
    """
    device, _ = place(spec)
    with reproducible(spec):
        model = model or build(spec, data.shape, data.classes)
        saved = checkpoint.load(folder.path, torch.device("cpu"))
        if saved is None:
            initialise(model, spec, data.batch(0, 0)[0].cpu())
        model.to(device)
        optimizer = make_optimizer(spec, model)
        recorder = None
        if spec.record.enabled:
            chosen = isinstance(spec.remedy, Auto)  # remedy=auto needs evidence
            recorder = make_recorder(spec, model, optimizer, data, evidence=evidence or chosen)
        remedy = None
        if spec.remedy.name != "none":
            remedy = RemedyRunner(spec, model, optimizer, data.shape, data.classes, recorder)
        if saved is not None:
            checkpoint.restore(saved, model, optimizer, recorder, remedy)
        logger = RunLogger(folder, {} if saved is None else saved["positions"], listeners)
        run = _Run(spec, data, model, optimizer, recorder, remedy, logger, folder)
        run.step = 0 if saved is None else saved["step"]
        try:
            ending = run.train()
            if recorder is not None and evidence:
                write_evidence(folder.path, recorder.evidence()._asdict())
            logger.finish()
        finally:
            logger.close()
        return ending


def make_recorder(
    spec: RunSpec,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: Dataset,
    *,
    evidence: bool = False,
) -> Recorder:
    """Create the recorder of a run from its `record` group."""
    return Recorder(
        model,
        optimizer=optimizer,
        census_every=None,  # the loop takes them at `census_steps_of`
        probe=probe_of(data) if spec.record.probe else None,
        gate_eps=spec.record.gate_eps,
        gradients=spec.record.gradients,
        thresholds=Thresholds.of(spec.detect),
        evidence=evidence,
    )


def probe_of(data: Dataset) -> list[torch.Tensor]:
    """Return the probe's inputs in the task of the last batch."""
    return [x for x, _ in data.probe_batches()]


class _Run:
    """The state of one training."""

    def __init__(
        self,
        spec: RunSpec,
        data: Dataset,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        recorder: Recorder | None,
        remedy: RemedyRunner | None,
        logger: RunLogger,
        folder: RunFolder,
    ) -> None:
        self.spec, self.data, self.model, self.optimizer = spec, data, model, optimizer
        self.recorder, self.remedy, self.logger, self.folder = recorder, remedy, logger, folder
        self.total = total_steps(spec, data.steps_per_epoch)
        self.step, self.task = 0, 0
        self.latest: pd.DataFrame | None = None
        self.transitions = Transitions()
        self.stopped, self.census_seconds = "", 0.0
        self.due = census_steps_of(spec, data)
        device = place(spec)[0].type
        self.autocast = torch.autocast(device, torch.bfloat16, enabled=spec.dtype is Dtype.bfloat16)
        self.look_every = 1 if device == "cpu" else DEVICE_LOOK

    def train(self) -> TrainResult:
        """Run all remaining steps."""
        if self.recorder is not None:
            with self._census_time():
                self.recorder.attach()
            if self.step:
                history = read_table(self.folder.path, "census").to_pandas()
                self.transitions.resume(history)
                self.latest = last_census(history)
            self.stopped = self._stop_reason()
            with self._census_time():
                self._write_censuses()
        if self.remedy is not None and not self.step:
            self._tell(self.remedy.begin())
        try:
            with DeferredInterrupts() as interrupts:
                return self._steps(interrupts)
        finally:
            if self.recorder is not None:
                self.recorder.detach()

    def _steps(self, interrupts: DeferredInterrupts) -> TrainResult:
        saved = time.monotonic()
        while self.step < self.total and not self.stopped:
            if not self._one_step():
                diverged = self.logger.flush() or self.step
                self.logger.event(diverged, "diverged", detail="the loss or a parameter is not finite")
                return TrainResult(self.step, diverged, census_seconds=self.census_seconds)
            if interrupts.requested:
                self.save()
                raise KeyboardInterrupt
            if time.monotonic() - saved >= self.spec.train.checkpoint_seconds:
                self.save()
                saved = time.monotonic()
        self.save()
        return TrainResult(self.step, None, self.stopped, self.census_seconds)

    @contextmanager
    def _census_time(self) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.census_seconds += time.monotonic() - began

    def save(self) -> None:
        """Write a checkpoint of the current state."""
        self.logger.flush()
        positions = self.logger.positions
        parts = self.model, self.optimizer, self.recorder, self.remedy
        checkpoint.save(self.folder.path, self.step, *parts, positions)

    def _one_step(self) -> bool:
        """Perform one step; return False if the run has diverged."""
        epoch, within = divmod(self.step, self.data.steps_per_epoch)
        last = self.step + 1 == self.total
        census = self.step + 1 in self.due
        lr = self.spec.optim.lr * factor(self.spec.schedule, self.step, self.total)
        lr *= 1.0 if self.remedy is None else self.remedy.rate
        set_learning_rate(self.optimizer, lr)
        x, y = self.data.batch(epoch, within)
        if isinstance(self.spec.model, CustomModel):  # so that dropout repeats after a continuation
            torch.manual_seed(stream(self.spec.seed, "step", self.step).initial_seed())
        self._enter(task(epoch, self.spec.data.permute_inputs_every))
        with self.autocast:
            output = self.model(x)
            loss = F.cross_entropy(output.float() if output.dtype == torch.bfloat16 else output, y)
        accuracy = (output.detach().argmax(1) == y).float().mean()
        self.logger.step(self.step + 1, (self.step + 1) / self.data.steps_per_epoch, lr, loss, accuracy)
        look = census or (self.step + 1) % self.look_every == 0
        if look and not math.isfinite(loss.item()):
            return False
        loss.backward()
        if self.spec.train.clip_grad is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.spec.train.clip_grad)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        if census and not all(bool(p.isfinite().all()) for p in self.model.parameters()):
            return False
        tested = is_tested(self.spec, self.step, self.data.steps_per_epoch)
        if tested:
            self.logger.test(self.step, *evaluate(self.model, self.data))
        if within == 0:
            for kind in new_tasks(self.spec.data, epoch):
                self.logger.event(self.step, kind, detail=f"epoch {epoch}")
        if self.recorder is not None:
            with self._census_time() if census else nullcontext():
                self.recorder.step(loss=loss)
                if census:
                    self.recorder.census()
                    self._write_censuses()
        if census:
            self.stopped = "" if last else self._stop_reason()
            if self.stopped:
                self.logger.event(self.step, "stopped", detail=self.stopped)
                if not tested:
                    self.logger.test(self.step, *evaluate(self.model, self.data))
            self.logger.flush()
        if self.remedy is not None and not last and not self.stopped:
            with self.autocast:
                self._tell(self.remedy.act(self.step, x, self._seen() if census else None))
        return True

    def _stop_reason(self) -> str:
        """Why the census of this step ends the training; "" if it does not or there is none."""
        if self.latest is None or self.latest["step"].max() != self.step:
            return ""
        state = last_census(self.latest)["state"]
        dead, units = int((state == "dead").sum()), int((state != "unobserved").sum())
        return stop_reason(self.spec, self.step, dead, units)

    def _seen(self) -> Seen | None:
        """What the census of this step shows to a remedy; None if there is none."""
        if self.latest is None or self.latest["step"].max() != self.step:
            return None
        return Seen(dead_share(self.latest), self._cause)

    def _cause(self) -> str:
        """Diagnose from the tables, since after a continuation only they have all censuses."""
        assert self.recorder is not None
        history = read_table(self.folder.path, "census").to_pandas()
        return diagnose(history, self.recorder.evidence(), Thresholds.of(self.spec.detect)).label

    def _enter(self, number: int) -> None:
        """Enter a task: permuted pixels need a new probe."""
        if number != self.task and self.recorder is not None and self.recorder.probe is not None:
            self.recorder.probe = probe_of(self.data)
        self.task = number

    def _tell(self, events: Sequence[RemedyEvent]) -> None:
        for event in events:
            self.logger.event(self.step, event.kind, site=event.site, units=event.units, detail=event.detail)

    def _write_censuses(self) -> None:
        assert self.recorder is not None
        census = self.recorder.drain()
        if census.empty:
            return
        self.logger.census(census)
        unseen = census[census["state"].eq("unobserved") & census["unit"].eq(-1)]["site"].unique()
        if self.latest is None:
            for site in self.recorder.sites:
                if site.name in unseen:
                    self.logger.event(self.step, "unobserved", site=site.name, detail=site.reason)
        for kind, site, units in self.transitions.add(census):
            self.logger.event(self.step, kind, site=site, units=units)
        self.latest = census


@torch.no_grad()
def evaluate(model: nn.Module, data: Dataset) -> tuple[float, float]:
    """Compute mean loss and accuracy on the test set, in evaluation mode and the parameters' precision."""
    model.eval()
    losses, hits, inputs = [], [], 0
    for x, y in data.test_batches():
        output = model(x)
        losses.append(F.cross_entropy(output, y, reduction="sum").double())
        hits.append((output.argmax(1) == y).sum())
        inputs += len(y)
    model.train()
    return torch.stack(losses).sum().item() / inputs, torch.stack(hits).sum().item() / inputs
