"""NeuronHealth: a callback for Lightning's Trainer."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn

from harness.detector.states import Thresholds
from harness.detector.verdict import HEALTHY
from harness.hooks.hook import Call
from harness.integrations import stop
from harness.integrations.watch import Watch, Watching
from harness.recording.batches import Batch, tensors_in
from harness.recording.distributed import is_distributed

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
    from torch.utils.hooks import RemovableHandle
else:
    # The same library has two package names, whose trainers reject each other's callbacks: support both.
    bases = []
    for package in ("lightning.pytorch", "pytorch_lightning"):
        try:
            bases.append(__import__(package, fromlist=["Callback"]).Callback)
        except ImportError as error:
            missing = error
    if not bases:
        raise ImportError(
            "harness.integrations.lightning needs Lightning: pip install 'dying-relu-harness[lightning]'"
        ) from missing
    Callback = type("Callback", tuple(bases), {})

STEP = "training_step"


class NeuronHealth(Watching, Callback):
    """Counts every unit at every training step, logs `dead_fraction`, and reports at the end who died.

    Everything that `training_step` calls is counted, however it is called: `self(x)`, `self.net(x)`, several
    networks. Validation, sanity checks, tests and predictions are not. A step of the record is a batch after
    which an optimizer stepped, so accumulated batches belong to one window. Training remains bitwise
    identical. A fit that starts at step 0 begins a new record; one that continues, also from a checkpoint,
    continues the record. Each census goes to the trainer's loggers at its own step, whatever
    `log_every_n_steps` is, and `dead_fraction` to the progress bar and `trainer.callback_metrics`.

    Args:
        census_every: steps between two censuses; None: one, at the end.
        probe: held-out batches, passed through `forward` (or `module`) at every census and before the first
            step.
        module: name of the only submodule to observe, such as "net" or "model.encoder"; None: everything
            that `training_step` calls, including activations in a loss.
        per_site: whether to log `dead_fraction/<site>`, too.
        healthy: dead share below which the verdict is "Healthy".
        thresholds: thresholds of the states.
        say: whether to print the verdict when a fit ends.
        options: further keyword arguments of `harness.Recorder`.

    Raises:
        TypeError, ValueError: immediately for an argument out of range; when training starts for a name that
            is not a submodule.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> health = NeuronHealth(census_every=50)
        >>> trainer = Trainer(max_epochs=1, callbacks=[health], accelerator="cpu", logger=False)
        >>> trainer.fit(model, loader)  # doctest: +SKIP
        >>> health.history().step.unique()  # doctest: +SKIP
        array([ 50, 100])
    """

    def __init__(
        self,
        census_every: int | None = 100,
        *,
        probe: Batch | Iterable[Batch] | None = None,
        module: str | None = None,
        per_site: bool = False,
        healthy: float = HEALTHY,
        thresholds: Thresholds | None = None,
        say: bool = True,
        **options: Any,
    ) -> None:
        super().__init__()
        self._watch = Watch(
            census_every=census_every,
            probe=probe,
            per_site=per_site,
            healthy=healthy,
            thresholds=thresholds,
            **options,
        )
        self._module, self._say = module, say
        self._stepped = self._warned = False
        self._handles: list[RemovableHandle] = []
        self._strategy: Any = None

    @property
    def state_key(self) -> str:
        """Key of the state in a checkpoint; it differs between callbacks on different modules."""
        return f"NeuronHealth(module={self._module!r})"

    # --- Lightning's hooks --------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach, after the sanity check and after a checkpoint was loaded."""
        self._release()
        if self._module is None:
            root: nn.Module = _TrainingStep(trainer, pl_module)
        else:
            root = _submodule(pl_module, self._module)
        for optimizer in trainer.optimizers:
            self._handles.append(optimizer.register_step_post_hook(Call(self._on_step)))
        name = STEP if self._module is None else repr(self._module)
        together = is_distributed(trainer.strategy.model or pl_module)  # also if only a submodule is observed
        first = self._watch.start(
            root,
            trainer.optimizers,
            steps=trainer.global_step,
            name=name,
            across_ranks=together,
            scaler=getattr(trainer.precision_plugin, "scaler", None),
        )
        if isinstance(root, _TrainingStep):
            self._strategy = trainer.strategy
            self._strategy.training_step = root.step
        self._log(trainer, pl_module, first, bar=False)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a step, if this batch completed one."""
        if not self._stepped:
            return
        self._stepped = False
        metrics = self._watch.step(outputs.get("loss") if isinstance(outputs, Mapping) else None)
        if metrics is not None:
            self._log(trainer, pl_module, metrics)
            self._warn()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the last window, detach, log and print the verdict."""
        self._release()
        self._log(trainer, pl_module, self._watch.finish(), bar=False)
        self._warn()
        if self._say and trainer.is_global_zero:
            pl_module.print(self._watch.words())

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Detach and remove all hooks."""
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Detach and remove all hooks, however the fit ended."""
        self._release()
        self._watch.stop()

    def state_dict(self) -> dict[str, Any]:
        """Steps, open windows and history for the checkpoint: tensors and plain values."""
        return self._watch.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Make the next fit continue where the checkpoint was written.

        Raises:
            ValueError: `state_dict` is not a state of this callback.
        """
        self._watch.load_state_dict(state_dict)

    # --- inside -------------------------------------------------------------------------------------

    def _on_step(self, *_: Any) -> None:
        self._stepped = True

    def _release(self) -> None:
        self._stepped = False
        while self._handles:
            self._handles.pop().remove()
        if self._strategy is not None:
            vars(self._strategy).pop("training_step", None)
            self._strategy = None

    def _log(
        self, trainer: Trainer, pl_module: LightningModule, metrics: dict[str, float] | None, bar: bool = True
    ) -> None:
        if not metrics:
            return
        if trainer.is_global_zero:  # not `pl_module.log`, which drops values between log_every_n_steps
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step=self._watch.steps)
        if bar:
            share = metrics.get("dead_fraction")
            others = {name: value for name, value in metrics.items() if name != "dead_fraction"}
            if share is not None:
                pl_module.log("dead_fraction", share, prog_bar=True, logger=False, on_step=True)
            pl_module.log_dict(others, logger=False, on_step=True)

    def _warn(self) -> None:
        recorder = self.recorder
        own = [s.name for s in recorder.sites if s.name.startswith(f"{STEP}:")] if recorder else []
        if own and not self._warned:
            self._warned = True
            warnings.warn(
                f"{', '.join(own)}: called in {STEP} itself, and counted. If that is part of the loss, name "
                'the network: NeuronHealth(module="…")',
                stacklevel=2,
            )


class StopOnDeadUnits(stop.StopOnDeadUnits, NeuronHealth):
    """`harness.StopOnDeadUnits` for Lightning's Trainer."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a step, and end the fit if too many units are dead."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self.should_stop:
            trainer.should_stop = True


class _TrainingStep(nn.Module):
    """The root to observe: its forward is one training step of the trainer.

    A LightningModule's own `forward` need not be called in training, so it cannot be the root. Outside a step
    (for a probe), this module behaves like the LightningModule.
    """

    def __init__(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().__init__()
        self.module = pl_module
        strategy = trainer.strategy
        self._precision = strategy.precision_plugin
        self._step = strategy.training_step
        self._wrappers = [m for m in (strategy.model,) if m is not None and m is not pl_module]
        self._running: Any = None

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Replaces the strategy's `training_step`."""
        self._running = partial(self._step, *args, **kwargs)
        try:
            return self(*tensors_in([*args, *kwargs.values()]))  # makes the inputs known as such
        finally:
            self._running = None

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        if self._running is not None:
            return self._running()
        with self._precision.forward_context():
            try:
                return self.module(
                    *self._precision.convert_input(inputs), **self._precision.convert_input(kwargs)
                )
            except NotImplementedError as error:
                raise ValueError(
                    f'probe: {type(self.module).__name__} has no forward; name the network: module="…"'
                ) from error

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Generator[tuple[str, nn.Module]]:
        """The LightningModule's own names; a wrapper (DDP) around it is among the modules."""
        yield STEP, self
        for wrapper in self._wrappers:
            yield "module", wrapper
        yield from self.module.named_modules(memo, prefix, remove_duplicate)


def _submodule(pl_module: nn.Module, name: str) -> nn.Module:
    try:
        return pl_module.get_submodule(name)
    except AttributeError:
        known = ", ".join(n for n, _ in pl_module.named_children())
        raise ValueError(f"module: expected a submodule such as {known}, but got {name!r}") from None
