"""NeuronHealthCallback: a callback for the Trainer of Hugging Face Transformers."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from harness.detector.states import Thresholds
from harness.detector.verdict import HEALTHY
from harness.integrations import stop
from harness.integrations.watch import Watch, Watching
from harness.recording.batches import Batch
from harness.recording.distributed import is_distributed

try:
    from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    raise ImportError(
        "harness.integrations.transformers needs Transformers and Accelerate: "
        "pip install 'dying-relu-harness[transformers]'"
    ) from error

FILE = "neuron_health.pt"  # in every checkpoint folder


class NeuronHealthCallback(Watching, TrainerCallback):
    """Counts every unit at every training step, logs `dead_fraction`, and reports at the end who died.

    Forwards of the model in training mode are counted; evaluation and prediction are not. Padding, as marked
    by the `attention_mask` of a batch, is not counted either, in training or in the probe. A step of the
    record is the Trainer's own (`state.global_step`), so accumulated batches belong to one window. Training
    remains bitwise identical. Each census is a separate entry in `state.log_history` and in everything the
    Trainer reports to, at its own step, whatever `logging_steps` is. Checkpoints hold the open windows and
    the history (`neuron_health.pt`); `resume_from_checkpoint` continues from them.

    Pass it to the Trainer's constructor, `Trainer(..., callbacks=[callback])`: then it leaves nothing in the
    model even if `train()` raises. If it was added later, call `close()` in that case.

    Args:
        census_every: steps between two censuses; None: one, at the end.
        probe: held-out batches (dicts of keyword arguments), passed through the model at every census and
            before the first step.
        per_site: whether to log `dead_fraction/<site>`, too.
        healthy: dead share below which the verdict is "Healthy".
        thresholds: thresholds of the states.
        say: whether to print the verdict when training ends.
        options: further keyword arguments of `harness.Recorder`.

    Raises:
        TypeError, ValueError: an argument is out of range.

    Example:
        >>> from transformers import Trainer
        >>> health = NeuronHealthCallback(census_every=50)
        >>> trainer = Trainer(model, args, train_dataset=data, callbacks=[health])  # doctest: +SKIP
        >>> trainer.train()  # doctest: +SKIP
        >>> health.history().step.unique()  # doctest: +SKIP
        array([ 50, 100])
    """

    def __init__(
        self,
        census_every: int | None = 100,
        *,
        probe: Batch | Iterable[Batch] | None = None,
        per_site: bool = False,
        healthy: float = HEALTHY,
        thresholds: Thresholds | None = None,
        say: bool = True,
        **options: Any,
    ) -> None:
        self._watch = Watch(
            census_every=census_every,
            probe=probe,
            per_site=per_site,
            healthy=healthy,
            thresholds=thresholds,
            **options,
        )
        self._say = say
        self._trainer: Trainer | None = None

    def close(self) -> None:
        """Detach from the model after training was interrupted; the record is kept."""
        self._watch.stop()
        self._trainer = None

    # --- the Trainer's events -----------------------------------------------------------------------

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Wrap `train()` so that it leaves nothing behind when it raises, since no event reports that."""
        trainer, _path = _caller()
        if trainer is None:
            return
        train = trainer.train

        @wraps(train)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            try:
                return train(*args, **kwargs)
            finally:
                self.close()

        trainer.train = guarded

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        optimizer: Any = None,
        **_: Any,
    ) -> None:
        """Attach; when resuming, continue with the checkpoint's windows."""
        assert model is not None
        trainer, checkpoint = _caller()
        self._trainer = trainer
        if state.global_step:
            folder = checkpoint or Path(args.output_dir or ".", f"checkpoint-{state.global_step}")
            if (folder / FILE).is_file():
                self._watch.load_state_dict(torch.load(folder / FILE, weights_only=True))
        wrapped = getattr(trainer, "model_wrapped", model)
        root = wrapped if is_distributed(wrapped) else model
        name = type(model).__name__
        scaler = getattr(getattr(trainer, "accelerator", None), "scaler", None)
        optimizers = _optimizers(optimizer)
        first = self._watch.start(root, optimizers, steps=state.global_step, name=name, scaler=scaler)
        self._report(control, first)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Count a step."""
        self._report(control, self._watch.step())

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Write the windows and the history into the checkpoint's folder."""
        kept = self._watch.state_dict()
        folder = Path(args.output_dir or ".", f"checkpoint-{state.global_step}")
        if state.is_world_process_zero and folder.is_dir():
            torch.save(kept, folder / FILE)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Close the last window with the Trainer's summary, before `on_train_end` closes the reporters."""
        if logs and "train_runtime" in logs:
            self._report(control, self._watch.finish())

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Detach, and print the verdict."""
        self._watch.finish()
        self._trainer = None
        if self._say and state.is_world_process_zero:
            print(self._watch.words())

    # --- inside -------------------------------------------------------------------------------------

    def _report(self, control: TrainerControl, metrics: dict[str, float] | None) -> None:
        if metrics and self._trainer is not None:
            due = control.should_log
            self._trainer.log(dict(metrics))  # marks the Trainer's own entry at this step as written
            control.should_log = due


class StopOnDeadUnits(stop.StopOnDeadUnits, NeuronHealthCallback):
    """`harness.StopOnDeadUnits` for the Trainer of Transformers."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Count a step, and end training if too many units are dead."""
        super().on_step_end(args, state, control, **kwargs)
        if self.should_stop:
            control.should_training_stop = True


def _caller() -> tuple[Trainer | None, Path | None]:
    """The Trainer that raised the current event, and the checkpoint from which it resumes.

    Events carry neither, and without the Trainer a callback cannot reach the reporters, which receive
    `on_log` first. But every event is called from within a method of the Trainer.
    """
    frame = sys._getframe(1)
    trainer = None
    while frame is not None:
        if isinstance(frame.f_locals.get("self"), Trainer):
            trainer = frame.f_locals["self"]
            path = frame.f_locals.get("resume_from_checkpoint")
            if isinstance(path, str | Path):
                return trainer, Path(path)
        frame = frame.f_back
    return trainer, None


def _optimizers(optimizer: Any) -> list[Optimizer]:
    """The optimizer itself, without Accelerate's wrapper, which does not accept hooks."""
    while isinstance(getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = optimizer.optimizer
    return [optimizer] if isinstance(optimizer, Optimizer) else []
