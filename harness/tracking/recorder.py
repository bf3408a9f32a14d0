"""Recorder: observe units during training, diagnose why they died, and store the training as a run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn
from torch.optim import Optimizer

from harness.attribution.recorder import Recorder as Observer
from harness.detector.states import Thresholds
from harness.detector.verdict import last_census
from harness.hooks.arguments import check_numbers
from harness.kernels.unit_statistic import UnitStatistic
from harness.recording.batches import Batch
from harness.recording.census_html import census_html
from harness.recording.listener import Guard
from harness.recording.loss_scale import Scaler
from harness.tracking.alert import Alert, Condition
from harness.tracking.announce import Announcer
from harness.tracking.config import Config, plain_config, run_name, run_path
from harness.tracking.loggers import as_loggers
from harness.tracking.views import Plots, write_page

if TYPE_CHECKING:
    from harness.tracking.run_writer import RunWriter


class Recorder(Observer):
    """Counts, for every unit of a model, on which inputs its gate is open during training.

    It counts every forward pass in the observed mode, and does not change the training by a single bit.

    Args:
        model: any module; its forward passes count, and those of submodules that are called directly, as in
            `model.encoder(x)`.
        optimizer: one optimizer or several; with it the censuses contain `grad_norm`.
        census_every: steps between two censuses; None: only when `census()` is called.
        observe: which forward passes count: "train", "eval" or "all".
        probe: held-out batches that are passed through at every census, and once before the first step.
        gate_eps: a gate is open where |f'(z)| exceeds this.
        gradients: whether to observe ∂L/∂z.
        thresholds: thresholds of the states in the censuses.
        per_call: whether to keep repeated calls that the same layer feeds apart.
        axis: site name → unit axis, if the automatic choice is wrong.
        across_ranks: whether the processes of a distributed training take one census together; by default
            if the model is wrapped in DistributedDataParallel or sharded (FSDP2).
        root_only: whether only the model's own forward passes count, not those of its submodules.
        statistics: user-defined statistics, computed for every unit; their columns follow those of the census
            (see `docs/howto/statistics.md`).
        scaler: the `torch.amp.GradScaler` of the training, if it has one. `grad_rms` is then divided by the
            scale of each backward pass, and inputs with non-finite gradients (from steps that the scaler
            skips) do not count in `grad_rms`. A Recorder cannot detect a scaled loss by itself: without
            `scaler=`, `grad_rms` refers to the scaled loss. `grad_norm` is unscaled either way.
        evidence: whether to gather what `diagnose()` needs (requires the optimizer): fourteen scalars per
            step, the first and latest parameters, and 512 each of the first and latest inputs.
        output: a folder of runs. The training is stored there as a run, which `open_runs`, all commands of
            `harness-tools` and TensorBoard can read. It is written during training. A Recorder attached after
            `load_state_dict` continues the run; without a state it starts the run again.
        name: name of the run's folder; by default the model's class and a hash of `config`.
        config: configuration of the training: a mapping (including OmegaConf's), an `argparse.Namespace` or a
            dataclass. Its keys become columns of `open_runs(output).table` and factors of
            `harness-tools compare`. `seed` distinguishes repetitions.
        tensorboard: whether to write an event file for the run.
        log_to: one logger or several, which receive the numbers of every census, the verdict and the map of
            units over time, as far as they support it: a `SummaryWriter`, a run of wandb, the module mlflow
            or (an `MlflowClient`, run id), a logger of Lightning or Accelerate, or a function
            (name, value, step). In a distributed training only the first process logs.
        alert: a dead share, or a function of the `Verdict`. At the first census that crosses it, the logger
            `harness` of the module `logging` emits a warning, and `should_stop` becomes True.

    Attributes:
        path: the run's folder; None without `output`.

    Raises:
        TypeError: `model` is not a module, `optimizer` not an optimizer, `scaler` not a scaler, `config` not
            a mapping, `output` not a path, or `name` not a string.
        ValueError: an argument is out of range, evidence is requested without an optimizer, a name or config
            is given without an output, or the configuration cannot be stored.

    Example:
        >>> import torch, harness
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with harness.Recorder(model, optimizer=optimizer, census_every=10) as recorder:
        ...     for _ in range(20):
        ...         loss = model(torch.randn(32, 4)).square().mean()
        ...         loss.backward()
        ...         optimizer.step()
        ...         optimizer.zero_grad()
        ...         recorder.step()
        >>> recorder.sites[0].name, recorder.census().n.iloc[0], recorder.history().step.unique().tolist()
        ('1', np.int64(320), [10, 20])
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        optimizer: Optimizer | Sequence[Optimizer] | None = None,
        census_every: int | None = 100,
        observe: str = "train",
        probe: Batch | Iterable[Batch] | None = None,
        gate_eps: float = 1e-6,
        gradients: bool = True,
        thresholds: Thresholds | None = None,
        per_call: bool = False,
        axis: Mapping[str, int] | None = None,
        across_ranks: bool | None = None,
        root_only: bool = False,
        statistics: Sequence[UnitStatistic] = (),
        scaler: Scaler | None = None,
        evidence: bool = False,
        output: str | os.PathLike[str] | None = None,
        name: str | None = None,
        config: Config | None = None,
        tensorboard: bool = True,
        log_to: Any = None,
        alert: Condition | None = None,
    ) -> None:
        super().__init__(
            model,
            evidence=evidence,
            optimizer=optimizer,
            census_every=census_every,
            observe=observe,
            probe=probe,
            gate_eps=gate_eps,
            gradients=gradients,
            thresholds=thresholds,
            per_call=per_call,
            axis=axis,
            across_ranks=across_ranks,
            root_only=root_only,
            statistics=statistics,
            scaler=scaler,
        )
        self._alert = None if alert is None else Alert(alert, self._thresholds)
        leads = not dist.is_initialized() or dist.get_rank() == 0
        loggers = as_loggers(log_to) if leads else []
        tells = bool(loggers) or self._alert is not None
        self._announcer = Announcer(loggers, self._alert, self._thresholds) if tells else None
        self._announcing = Guard("log_to and alert")
        self._run = Guard("the run on disk")
        self._writer: RunWriter | None = None
        self._error: BaseException | None = None  # exception that ends the block
        self._open = False
        self.path: Path | None = None
        plain = plain_config(config)
        if output is None:
            if name is not None or config is not None:
                raise ValueError("name and config belong to a run on disk: expected output=, its folder, too")
        else:
            self.path = run_path(output, run_name(self._model, plain) if name is None else name)
            if leads:
                self._writer = self._writer_to(self.path, plain, tensorboard=tensorboard)

    # --- attaching ----------------------------------------------------------------------------------

    def attach(self) -> None:
        """Register the hooks, and open the run on disk (the context manager calls this).

        Raises:
            RuntimeError: already attached, or another Recorder writes the run.
            OSError: the run cannot be written, or the folder is not a Recorder's.
        """
        if self._writer is not None and not self._attached:
            self._writer.begin(self.steps)
            self._open = True
        super().attach()
        if self.steps == 0:  # a census of the probe, before the first step
            self._tell_census()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the window if it contains a step, detach, and conclude the run on disk."""
        self._error = error
        super().__exit__(kind, error, trace)

    def detach(self) -> None:
        """Remove all hooks and conclude the run on disk; recorded data stays available."""
        super().detach()
        if self._open and self._writer is not None:
            self._open = False
            self._run.run(self._writer.finish, self.steps, self._error, self._evidence_tables())
            self._writer.close()
        if self._announcer is not None:
            self._announcing.run(self._announcer.finish, self.history())
        if self._error is None:  # never hide the user's own exception
            self._run.say()
            self._announcing.say()

    # --- the loop -----------------------------------------------------------------------------------

    def step(self, loss: torch.Tensor | float | None = None, **metrics: torch.Tensor | float) -> None:
        """Count a step, and take a census if one is due; call once after each optimizer step.

        Args:
            loss: loss of this step, for the listeners; without it, a diagnosis cannot detect wrong labels.
                Its graph is not kept alive, and its value is read later.
            metrics: further numbers of this step for the run on disk: `accuracy`, `test_loss`,
                `test_accuracy` and `epoch` have standard columns; any others get new ones.

        Raises:
            RuntimeError: not attached.
            TypeError: `loss` or a metric is not a number.
            ValueError: metrics are given without a run on disk, or the loss has several values and a
                diagnosis needs one.
        """
        if metrics and self.path is None:
            names = ", ".join(metrics)
            raise ValueError(f"{names}: metrics belong to a run on disk; give Recorder(output=…)")
        if loss is not None or metrics:
            check_numbers(loss, metrics)
            self._check_loss(loss)
        if self._in_capture():
            return
        if self._open and self._writer is not None:
            self._run.run(self._writer.step, self.steps + 1, self._rate(), loss, metrics)
        super().step(loss)

    def _close(self, *, warn: bool = True, asked: bool = False) -> None:
        super()._close(warn=warn, asked=asked)
        self._tell_census()

    def _tell_census(self) -> None:
        """Pass the latest census to the run on disk and the loggers."""
        if not self._open and self._announcer is None:
            return  # avoid building a table that nobody reads
        latest = self.latest
        if latest is None:
            return
        if self._open and self._writer is not None:
            self._run.run(self._writer.census, latest)
        if self._announcer is not None:
            self._announcing.run(self._announcer.census, latest, self.history)

    # --- recorded data ------------------------------------------------------------------------------

    @property
    def should_stop(self) -> bool:
        """Whether a census has crossed the threshold `alert`."""
        return self._alert is not None and self._alert.ever

    def save(self, path: str | os.PathLike[str], config: Config | None = None) -> Path:
        """Write what was recorded so far as a run that all commands of `harness-tools` can read.

        It does not contain losses and metrics of the steps, which only `Recorder(output=…)` stores.

        Args:
            path: the run's folder; an earlier run of a Recorder there is replaced.
            config: configuration of the training, as in `Recorder`.

        Returns:
            The folder.

        Raises:
            RuntimeError: nothing was recorded, or another process is writing there.
            TypeError, ValueError: the path or the configuration is invalid.
            OSError: the folder cannot be written, or is not a Recorder's.
        """
        history = self.history()
        if history.empty:
            raise RuntimeError("save() came before the first census: there is nothing to keep yet")
        given = Path(path).expanduser()
        folder = run_path(given.parent, given.name)
        writer = self._writer_to(folder, plain_config(config), tensorboard=False)
        writer.begin(0)
        try:
            for _, census in history.groupby("step", sort=True):
                writer.census(census)
        except BaseException as error:
            writer.finish(self.steps, error)
            raise
        writer.finish(self.steps, None, self._evidence_tables())
        return folder

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write what was recorded so far as an HTML page.

        Raises:
            RuntimeError: nothing was recorded.
            OSError: the file cannot be written.
        """
        return write_page(self.save, os.fspath(path), self._thresholds)

    @property
    def plot(self) -> Plots:
        """Figures of the recorded data, such as `recorder.plot.rate_map()`."""
        return Plots(self.history)

    def _repr_html_(self) -> str:
        rows = None if self.latest is None else last_census(self.latest)
        return census_html(rows, self.sites, repr(self).strip("<>"))

    def state_dict(self) -> dict[str, Any]:
        """State to continue from in another process; also flushes all steps to the run on disk."""
        if self._open and self._writer is not None:
            self._run.run(self._writer.flush)
        return super().state_dict()

    # --- inside -------------------------------------------------------------------------------------

    def _writer_to(self, path: Path, config: Mapping[str, Any], *, tensorboard: bool) -> RunWriter:
        from harness.tracking.run_writer import (
            RunWriter,  # imported here because pyarrow and TensorBoard are only needed for a run on disk
        )

        return RunWriter(path, config, self._thresholds, tensorboard=tensorboard)

    def _rate(self) -> float:
        """Learning rate of the optimizer's first group."""
        return float(self._optimizers[0].param_groups[0]["lr"]) if self._optimizers else float("nan")

    def _evidence_tables(self) -> dict[str, Any] | None:
        if self._collector is None or self.latest is None or self._error is not None:
            return None
        try:
            return self._latest_evidence()._asdict()
        except Exception as error:
            self._run.switch_off(error)
            return None
