"""A cohort: runs of the same shape trained as one stack, each with the result of its own run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.config import RunSpec
from harness.config.identity import run_id
from harness.store.folder import RunFolder
from harness.training.device import computing
from harness.training.device import place as place_of
from harness.training.interrupts import DeferredInterrupts
from harness.training.loop import DEVICE_LOOK, TrainResult
from harness.training.run_logger import View
from harness.training.stacked import backend, checkpoint
from harness.training.stacked.batch_tables import BatchTableWriter
from harness.training.stacked.batches import CohortData
from harness.training.stacked.divergence import divergences
from harness.training.stacked.losses import cross_entropy, evaluate
from harness.training.stacked.members import Observed, check_members, initial, network_of, observed, order
from harness.training.stacked.network import StackedMLP
from harness.training.stacked.optimizers import Optimizer, learning_rates
from harness.training.stacked.parameters import Parameter
from harness.training.stacked.recording import Recording
from harness.training.stacked.remedies import PlacedEvent, StackRemedyRunner
from harness.training.step_counts import census_steps_of, is_tested, total_steps
from harness.training.stopping import stop_reason
from harness.training.tasks import new_tasks


def train_cohort(
    specs: Sequence[RunSpec],
    folders: Sequence[RunFolder],
    keep: Path,
    tick: Callable[[int], None] | None = None,
    views: Sequence[Sequence[View]] = (),
) -> list[TrainResult]:
    """Train a cohort, or continue it from its checkpoint, and write each member's tables to disk.

    A continued cohort equals an uninterrupted one bit by bit. A member equals its single run up to rounding.
    It does not depend on the other members, except possibly in the last bits if its matrices are not
    multiples of 64 bytes, because matrix products then round differently depending on memory alignment.

    Three files per member stay open; mind the limit of the operating system.

    Args:
        specs: the members; `harness.training.stacking` decides which runs may be stacked.
        folders: folders of their runs, in the same order.
        keep: folder of the cohort's checkpoint. The checkpoint remains at the end, and another call then
            returns at once. The caller removes it when the members' results are on disk.
        tick: called with the number of completed steps after each step.
        views: views of each member, notified of its censuses and steps during training; empty for none.

    Returns:
        How each training ended, in the given order.

    Raises:
        ValueError: the runs cannot be one stack.
        ConfigError: the network cannot read the data, or similar.
        KeyboardInterrupt: between two steps, after a checkpoint has been written.
    """
    check_members(specs, folders)
    with computing(specs[0].train.threads or 1), torch.no_grad():
        return _train(specs, folders, keep, tick, views)


def _train(
    specs: Sequence[RunSpec],
    folders: Sequence[RunFolder],
    keep: Path,
    tick: Callable[[int], None] | None,
    views: Sequence[Sequence[View]],
) -> list[TrainResult]:
    saved = checkpoint.load(keep, specs, [folder.path for folder in folders])
    device, dtype = place_of(specs[0])
    data = CohortData([specs[k] for k in order(specs)], dtype, device)
    rates = learning_rates(specs, total_steps(specs[0], data.steps_per_epoch))
    positions = [{} for _ in specs] if saved is None else saved["positions"]
    if saved is None:
        for folder in folders:  # tables of an earlier training would take precedence over the new streams
            for table in folder.path.glob("*.parquet"):
                table.unlink()
    writer = BatchTableWriter(folders, positions, rates, data.steps_per_epoch, views)
    try:
        cohort = _Cohort(specs, folders, data, rates, writer, keep, tick)
        if saved is None:
            cohort.begin()
        else:
            cohort.restore(saved)
        with DeferredInterrupts() as interrupts:
            cohort.train(interrupts)
        checkpoint.leave_networks(*cohort.networks)
        writer.finish()
        return cohort.endings
    finally:
        writer.close()


class _Cohort:
    """The state of a cohort's training; `members` are those still in the stack, in its order."""

    def __init__(
        self,
        specs: Sequence[RunSpec],
        folders: Sequence[RunFolder],
        data: CohortData,
        rates: np.ndarray,
        writer: BatchTableWriter,
        keep: Path,
        tick: Callable[[int], None] | None,
    ) -> None:
        self.specs, self.data, self.rates, self.writer, self.keep = specs, data, rates, writer, keep
        self.folders, self.tick = folders, tick
        self.total = len(rates)
        self.due = census_steps_of(specs[0], data)
        self.members = order(specs)
        writer.members = self.members
        self.step = 0
        self.parameters: list[Parameter] = []
        self.buffers: dict[str, torch.Tensor] = {}
        self.found: list[TrainResult | None] = [None] * len(specs)
        self.census_seconds = 0.0  # of all members together, in this process
        self.patience = min(spec.train.checkpoint_seconds for spec in specs)
        self.looked, self.look_every = 0, 1 if backend.compiled(data.device) else DEVICE_LOOK
        self.observed = Observed((), (), ())
        if specs[0].record.enabled:
            self.observed = observed(specs[0], data.shape, data.classes)
        self.recording: Recording | None = None
        self.remedies: StackRemedyRunner | None = None

    @property
    def stacked(self) -> list[RunSpec]:
        """Specifications of the members still in the stack, in its order."""
        return [self.specs[k] for k in self.members]

    @property
    def endings(self) -> list[TrainResult]:
        endings = [TrainResult(self.step, None) if ending is None else ending for ending in self.found]
        return [replace(ending, census_seconds=self.census_seconds) for ending in endings]

    @property
    def networks(self) -> tuple[list[RunFolder], list[Parameter], dict[str, torch.Tensor]]:
        """Folders, parameters and buffers of the members still in the stack."""
        return [self.folders[k] for k in self.members], self.parameters, self.buffers

    # --- beginnings -----------------------------------------------------------------------------

    def begin(self) -> None:
        """Initialise the members before their first step."""
        beginning = initial(self.stacked, self.data)
        self._assemble(beginning.parameters, beginning.buffers)
        logits = self.network.forward(beginning.sample, training=False)
        if not torch.allclose(logits, beginning.logits, rtol=1e-3, atol=1e-4, equal_nan=True):
            raise ValueError("the stack computes something else than its members' own networks")
        table = None if self.recording is None else self.recording.before(self.data)
        if table is not None:
            self.writer.census(table)
        if self.remedies is not None:
            self._tell(self.remedies.begin())

    def restore(self, saved: dict[str, Any]) -> None:
        """Restore the members from a checkpoint."""
        self.step = self.looked = saved["step"]
        self.found = [None if e is None else TrainResult(*e) for e in saved["endings"]]
        self.data.keep([self.members.index(k) for k in saved["stack"]])
        self.members = self.writer.members = list(saved["stack"])
        if not self.members:
            return
        device = self.data.device
        parameters = [Parameter.from_state(state, device) for state in saved["parameters"]]
        self._assemble(parameters, {name: buffer.to(device) for name, buffer in saved["buffers"].items()})
        if self.recording is not None:
            self.recording.load(saved["recording"])
        if self.remedies is not None:
            self.remedies.load(saved["cures"])

    def _assemble(self, parameters: list[Parameter], buffers: dict[str, torch.Tensor]) -> None:
        specs = self.stacked
        self.parameters, self.buffers = parameters, buffers
        self.network = network_of(specs, self.data, parameters, buffers, self.observed.calls)
        self.optimizer = Optimizer(specs, parameters)
        self.own_rates = self.rates[:, self.members]
        if specs[0].record.enabled:
            self.recording = Recording(specs, self.observed, self.network, parameters)
        self.remedies = None
        if isinstance(self.network, StackedMLP) and any(spec.remedy.name != "none" for spec in specs):
            making = self.observed.sites, self.data.shape, self.data.classes
            self.remedies = StackRemedyRunner(specs, self.network, parameters, buffers, *making)

    def save(self, *, done: bool = False) -> None:
        """Write a checkpoint of the current state."""
        if not done and self.members:
            self._look(census=False)
        self.writer.flush()
        content = {
            "members": [run_id(spec) for spec in self.specs],
            "step": self.step,
            "done": done,
            "stack": self.members,
            "endings": [None if e is None else (e.steps, e.diverged_at, e.stopped) for e in self.found],
            "positions": self.writer.positions,
            "parameters": [p.state() for p in self.parameters],
            "buffers": self.buffers,
            "cures": None if self.remedies is None else self.remedies.state(),
            "recording": None if self.recording is None else self.recording.state(),
        }
        checkpoint.save(self.keep, content)

    # --- steps ----------------------------------------------------------------------------------

    def train(self, interrupts: DeferredInterrupts) -> None:
        """Run all remaining steps."""
        saved = time.monotonic()
        while self.step < self.total and self.members:
            self._one_step()
            if self.tick is not None:
                self.tick(self.step)
            if interrupts.requested:
                self.save()
                raise KeyboardInterrupt
            if time.monotonic() - saved >= self.patience:
                self.save()
                saved = time.monotonic()
        self.save(done=True)

    def _one_step(self) -> None:
        spec, recording = self.specs[0], self.recording
        epoch, within = divmod(self.step, self.data.steps_per_epoch)
        last = self.step + 1 == self.total
        census = self.step + 1 in self.due
        x, y = self.data.batch(epoch, within)
        logits = self.network.forward(x, None if recording is None else recording.begin())
        if self.remedies is not None:
            self.remedies.watch()
        losses, accuracies, gradient = cross_entropy(logits, y)
        self.writer.step(self.step + 1, losses, accuracies)
        self.network.backward(gradient, None if recording is None else recording.backward)
        scales = self.optimizer.scales()
        if census and recording is not None:
            recording.read_gradients(scales)
        self.optimizer.step(self.own_rates[self.step], self.step + 1, scales)
        self.step += 1
        members = self.members
        if census or last or self.step % self.look_every == 0:
            self._look(census=census)
        if not self.members:
            return
        recording = self.recording  # replaced if members have left
        tested = is_tested(spec, self.step, self.data.steps_per_epoch)
        if tested:
            self.writer.test(self.step, *evaluate(self.network, self.data))
        if within == 0:
            for kind in new_tasks(spec.data, epoch):
                for place in range(len(self.members)):
                    self.writer.event(place, self.step, kind, detail=f"epoch {epoch}")
        if census:
            if recording is not None:
                began = time.monotonic()
                table, changes = recording.census(self.step, self.data)
                self.writer.census(table)
                self.census_seconds += time.monotonic() - began
                for place, kind, site, units in changes:
                    self.writer.event(place, self.step, kind, site=site, units=units)
                if not last:
                    self._stop_dead(recording.dead, tested=tested)
            self.writer.flush()
            if not self.members:
                return
        if self.remedies is not None and not last:
            if len(self.members) < len(members):
                x = x[[members.index(member) for member in self.members]]
            self._tell(self.remedies.act(self.step, x))

    def _tell(self, events: Sequence[PlacedEvent]) -> None:
        for place, event in events:
            self.writer.event(
                place, self.step, event.kind, site=event.site, units=event.units, detail=event.detail
            )

    def _look(self, *, census: bool) -> None:
        """Remove members that have diverged since the last look."""
        losses = self.writer.losses(self.looked)
        self.looked = self.step
        diverged = divergences(losses, self.step, self.parameters if census else ())
        for place, step in diverged.items():
            # a step with a non-finite loss does not count as completed
            lost = not math.isfinite(losses[step - self.step - 1, place])
            self.found[self.members[place]] = TrainResult(step - lost, step)
            self.writer.end(place, step)
            self.writer.event(place, step, "diverged", detail="the loss or a parameter is not finite")
        if diverged:
            self._keep([place for place in range(len(self.members)) if place not in diverged])

    def _stop_dead(self, dead: np.ndarray, *, tested: bool) -> None:
        """Stop and remove the members in which enough units are dead.

        Args:
            dead: (K, U) dead units at the census of this step.
            tested: whether the test set was evaluated after this step.
        """
        counts, units = dead.sum(1), dead.shape[1]
        stops = [
            stop_reason(spec, self.step, int(n), units) for spec, n in zip(self.stacked, counts, strict=True)
        ]
        ending = [place for place, reason in enumerate(stops) if reason]
        if not ending:
            return
        if not tested:  # only for these members, since the others would not test here in their own runs
            results = evaluate(self.network, self.data)
            mask = np.array([bool(reason) for reason in stops])
            self.writer.test(self.step, *(np.where(mask, result, np.nan) for result in results))
        for place in ending:
            self.writer.event(place, self.step, "stopped", detail=stops[place])
            self.found[self.members[place]] = TrainResult(self.step, None, stops[place])
        checkpoint.leave_networks(*self.networks, ending)
        self._keep([place for place, reason in enumerate(stops) if not reason])

    def _keep(self, places: list[int]) -> None:
        """Keep only the members at these places of the stack."""
        self.writer.keep(places)
        self.members = self.writer.members
        state = None if self.recording is None else self.recording.state()
        remedies = self.remedies
        self.data.keep(places)
        if places:
            rows = torch.tensor(places)
            parameters = [own for p in self.parameters if (own := p.keep(places)) is not None]
            self._assemble(parameters, {name: buffer[rows] for name, buffer in self.buffers.items()})
            if self.recording is not None and state is not None:
                self.recording.load(state, places)
            if self.remedies is not None and remedies is not None:
                self.remedies.inherit(remedies, places)
        else:
            self.parameters, self.buffers, self.recording, self.remedies = [], {}, None, None
