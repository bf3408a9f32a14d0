"""The recorder's core: hooks, windows and censuses around a user's own training loop."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import pandas as pd
import torch
from torch import nn
from torch.optim import Optimizer

from harness.detector.states import Thresholds
from harness.hooks._torch import without_compiler
from harness.hooks.arguments import STATE, as_optimizers, check, check_numbers, check_options, check_state
from harness.hooks.captured import STEP, is_capturing
from harness.hooks.masks import Mask
from harness.kernels.unit_statistic import UnitStatistic
from harness.recording.attributes import has_lazy_parts
from harness.recording.batches import Batch
from harness.recording.census_log import CensusLog
from harness.recording.copied_recorder import Uncopied
from harness.recording.listener import Listener, Listeners
from harness.recording.loss_scale import Scaler
from harness.recording.probe import Probe
from harness.recording.recorded_data import RecordedData
from harness.recording.recorder_warnings import LAZY, NO_STEP, RecorderWarnings
from harness.recording.schedule import due
from harness.recording.stream import Stream


class ActivationRecorder(RecordedData, Uncopied):
    """Counts, for every unit of a model, on which inputs its gate is open during training.

    `harness.Recorder` adds attribution and the run on disk, and documents the arguments.

    Raises:
        TypeError: `model` is not a module, or `optimizer` is not an optimizer.
        ValueError: an argument is out of range.
    """

    _no_step = NO_STEP  # said if nothing was counted as a step

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
    ) -> None:
        check(model, observe, census_every, gate_eps)
        model = without_compiler(model)
        flags = {"gradients": gradients, "per_call": per_call, "root_only": root_only}
        check_options(thresholds, axis, statistics, flags, across_ranks)
        self._model = model
        self._optimizers = as_optimizers(optimizer)
        self._every = census_every
        self._thresholds = thresholds or Thresholds()
        options: dict[str, Any] = {"gate_eps": gate_eps, "per_call": per_call, "axis": axis}
        own = {"observe": observe, "root_only": root_only, "scaler": scaler, "across_ranks": across_ranks}
        self._stream = Stream(model, self._optimizers, statistics, gradients=gradients, **own, **options)
        self._windows, self._taps = self._stream.windows, self._stream.taps
        self._incoming, self._compiled = self._stream.incoming, self._taps.compiled.functions
        self._probe = Probe(model, statistics, **options)
        self.probe = probe
        self._log = CensusLog(self._thresholds)
        self._steps, self._closed = 0, -1  # completed steps; step of the last census
        self._attached = False
        self._warnings = RecorderWarnings(self._taps, self._probe.taps, axis or {})
        self._listeners = Listeners()

    def add_listener(self, name: str, listener: Listener) -> None:
        """Add a listener that follows the training; an error in it switches it off, with a warning.

        Args:
            name: key of its state in `state_dict`.
            listener: the listener.

        Raises:
            RuntimeError: already attached.
            ValueError: the name is a key of the recorder's own state.
        """
        if self._attached:
            raise RuntimeError("add_listener() came inside the block: add listeners before it")
        if name in STATE:
            raise ValueError(f"name: expected another one than {', '.join(STATE)}, but got {name!r}")
        self._listeners.add(name, listener)
        self._taps.compiled.follower = name

    # --- attaching ----------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Attach; with a probe, take its census before the first step."""
        self.attach()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the window if it contains a step, then detach.

        Forward passes after the last census without a further step, such as a sanity check, make no census.
        Without any step, one window closes, labelled 0.
        """
        try:
            if self._has_rest() or (self._log.last is None and self._lacks_census()):
                self._close(warn=error is None)
                if self._steps == 0 and self._windows.trained and error is None:
                    warnings.warn(self._no_step, stacklevel=2)
        except Exception:
            if error is None:  # never hide the user's own exception
                raise
        finally:
            self.detach()

    def __repr__(self) -> str:
        """Name of the model's class, and progress."""
        sites, steps = len(self._windows.sites) or len(self._probe.windows.sites), self._steps
        last = "no census yet" if self._closed < 0 else f"last census at step {self._closed}"
        kind, model = type(self).__name__, type(self._model).__name__
        counts = f"{sites} site{'s' * (sites != 1)}, {steps} step{'s' * (steps != 1)}"
        return f"<{kind} of {model}: {counts}, {last}>"

    def attach(self) -> None:
        """Register the hooks (the context manager calls this).

        Raises:
            RuntimeError: already attached.
        """
        if self._attached:
            raise RuntimeError(
                "this Recorder is already attached: leave its block first, or make another one"
            )
        self._attached = True
        self._stream.attach(closing=due(self._steps + 1, self._every))
        self._listeners.attach()
        if self.probe is None or self._steps or self._log:
            return
        if has_lazy_parts(self._model):
            warnings.warn(LAZY, stacklevel=3)
        else:
            try:
                self._log.add([self._probe.census(self._steps, self._taps)])
            except BaseException:  # the model rejects a batch: do not enter the block
                self.detach()
                raise

    def detach(self) -> None:
        """Remove all hooks; recorded data stays available."""
        self._attached = False
        self._stream.detach()
        self._probe.taps.detach()
        self._listeners.detach()

    # --- the loop -----------------------------------------------------------------------------------

    def step(self, loss: torch.Tensor | float | None = None) -> None:
        """Count a step, and take a census if one is due; call once after each optimizer step.

        Args:
            loss: loss of this step, for the listeners; without it, a diagnosis cannot detect wrong labels.
                Its graph is not kept alive, and its value is read later.

        Raises:
            RuntimeError: not attached.
            TypeError: `loss` is not a number.
            ValueError: `loss` has several values, and a diagnosis needs one.
        """
        if not self._attached:
            raise RuntimeError("step() came outside the block: use `with Recorder(model) as recorder:`")
        if loss is not None:
            check_numbers(loss)
            self._check_loss(loss)
        if self._in_capture():
            return
        if self._listeners:
            self._listeners.step(loss)
        self._count()

    def _in_capture(self) -> bool:
        """Whether a CUDA graph is being captured, which does not count as a step; its replays do."""
        capturing = is_capturing()
        if capturing:
            self._taps.counter.say(STEP)
        return capturing

    def _count(self) -> None:
        """Count a completed step, and take the census if one is due."""
        self._steps = steps = self._steps + 1
        self._incoming.calls += 1
        self._taps.expect_no_forward()
        if self._taps.ready or self._compiled.unsure:
            self._taps.release()
        every = self._every
        if every is not None:
            if steps % every == 0:
                self._close()
            self._incoming.closing = (steps + 1) % every == 0

    def mask(self, mask: torch.Tensor | None) -> None:
        """Set which inputs of the model's next forward pass count, to exclude padding.

        A keyword argument `attention_mask` of zeros and ones is used automatically; a mask set here takes
        precedence.

        Sites with one row per sequence count the sequences that are not all padding. If the mask does not fit
        a site (for example, after a strided convolution), the site counts all inputs, and a warning at the
        census says so. On a GPU, each mask synchronises once.

        Args:
            mask: (batch,) or (batch, positions), True or 1 where an input counts, as in an `attention_mask`;
                torch's `key_padding_mask` is the opposite. None: all count.

        Raises:
            RuntimeError: not attached.
            TypeError: `mask` is not a tensor.
            ValueError: `mask` has another number of axes, or values other than 0 and 1.

        Example:
            >>> from torch import nn
            >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
            >>> with ActivationRecorder(model, census_every=None) as recorder:
            ...     recorder.mask(torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]]))
            ...     _ = model(torch.rand(2, 4, 3))
            ...     int(recorder.census().n[0])
            4
        """
        if not self._attached:
            raise RuntimeError("mask() came outside the block: use `with Recorder(model) as recorder:`")
        self._mask(None if mask is None else Mask(mask))

    def census(self) -> pd.DataFrame:
        """Close the window and return its census; after the block, return the last census.

        Returns:
            One row per site × unit (and evidence), with `harness.detector.states.CENSUS_COLUMNS`. If nothing
            was observed since the last census, rows have n = 0 and state `unobserved`.

        Raises:
            ValueError: no activation was seen in the model.
            RuntimeError: nothing was recorded and the recorder is not attached.
        """
        if self._attached or (self._windows.nonempty and self._closed < self._steps):
            self._close(asked=True)
        latest = self.latest
        if latest is None:
            raise RuntimeError("census() came before anything was recorded: use `with Recorder(...)` first")
        return latest

    def _close(self, *, warn: bool = True, asked: bool = False) -> None:
        """Close the window and store its columns; tables are built only when read.

        Args:
            warn: whether warnings may be given.
            asked: whether the user wants a census now, so that an error says that there is none.
        """
        self._taps.expect_no_forward()
        if self._taps.counter.wrong_argument is not None:
            raise self._taps.counter.wrong_argument
        unseen = [site for site in self._unseen() if site.name not in self._windows.restored_names]
        known = self._probe.windows.sites
        if not self._windows.sites and not unseen and not known and not self._windows.restored_names:
            if asked:
                raise ValueError(self._warnings.nothing_seen)
            if warn:  # a step must not end the training
                self._warnings.warn_of_nothing()
            return
        self._taps.say_unknown_gradients(trained=self._windows.trained)
        self._taps.say_missed()
        if warn:  # not while a user's exception propagates
            self._warnings.warn(unseen, self.sites)
            self._warnings.warn_of_other_mode(max(0, self._closed), self._steps)
        parts = [self._stream.census(self._steps, unseen, known)]
        self._listeners.census()
        if self.probe is not None:
            parts.append(self._probe.census(self._steps, self._taps))
        self._log.add(parts)
        self._closed = self._steps

    # --- its state ---------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Steps and running windows as tensors and plain values, to continue them in another process."""
        state = {
            "steps": self._steps,
            "closed": self._closed,
            "stream": self._windows.state_dict(),
            "probe": self._probe.windows.state_dict(),
        }
        return state | self._listeners.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore steps and windows from `state_dict`, which does not contain the history.

        Raises:
            TypeError, ValueError: it is not the state of a Recorder.
        """
        check_state(state)
        self._steps, self._closed = int(state["steps"]), int(state.get("closed", -1))
        self._windows.load_state_dict(state["stream"])
        self._probe.windows.load_state_dict(state["probe"])
        self._listeners.load_state_dict(state)

    # --- inside -------------------------------------------------------------------------------------

    def _check_loss(self, loss: Any) -> None:
        """Check the loss of a step beyond its type."""

    def _lacks_census(self) -> bool:
        """Whether nothing was counted since a state was loaded, which is a result too, or worth a warning."""
        since = self._closed < self._steps
        if self._windows.sites:  # called, but never counted
            return since
        ran = self._taps.forwards > 0 or (since and self._steps > 0)
        return ran or bool(self._taps.unobserved(self._taps.called))

    def _has_rest(self) -> bool:
        """Whether the last window contains a step, so that leaving closes it; a probe needs no forward."""
        seen = self._windows.nonempty or (self.probe is not None and self._steps > 0)
        return seen and self._closed < self._steps

    def _mask(self, mask: Mask | None) -> None:
        self._taps.counter.masking.tell(mask)
