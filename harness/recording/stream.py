"""The stream: the training's own passes, observed in windows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from torch import nn
from torch.optim import Optimizer

from harness.graph.plan import Site
from harness.graph.producers import Producer
from harness.hooks.eager import EagerTaps
from harness.hooks.hook import weakly
from harness.kernels.unit_statistic import UnitStatistic
from harness.recording.distributed import is_distributed
from harness.recording.incoming_gradients import IncomingGradients
from harness.recording.loss_scale import LossScale, Scaler, as_scaler
from harness.recording.unit_parameters import PARTLY_FROZEN, is_partly_frozen
from harness.recording.windows import WindowAccumulator

NOT_ITS_OWN = "the optimizer holds no parameter of this model, so that grad_norm is not known"


class Stream:
    """The passes of a training, with their taps, windows and incoming gradients.

    Args:
        model: the root module.
        optimizers: the optimizers that step it.
        statistics: user-defined statistics.
        gradients: whether gradients are observed.
        scaler: what scales the loss, if anything does.
        across_ranks: whether a census is one of all ranks; None: if the model is distributed.
        options: further keyword arguments of the taps.

    Attributes:
        windows: the sums since the last census.
        taps: the observers of the model's passes.
        incoming: norms of the gradients of each unit's incoming weights.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[Optimizer],
        statistics: Sequence[UnitStatistic],
        *,
        gradients: bool,
        scaler: Scaler | None,
        across_ranks: bool | None,
        **options: Any,
    ) -> None:
        self.windows = WindowAccumulator("stream", self._add_site if gradients else None, statistics)
        self.taps = EagerTaps(model, self.windows, gradients=gradients, **options)
        failed = partial(self.taps.counter.failed, "the gradients of an optimizer's step")
        self.incoming = IncomingGradients(optimizers, failed)
        self.taps.on_forward = self.incoming.forward if gradients else None
        given = as_scaler(scaler)
        if given is not None and gradients:
            failed = partial(weakly(self.taps.counter.failed), "the loss scale")
            scale = LossScale(given, self.windows.statistics, failed)
            self.taps.counter.sums.on_gradient, self.windows.before_reading = scale.gradient, scale.close
        self._model, self._gradients, self._across_ranks = model, gradients, across_ranks
        self._optimizers = optimizers

    def attach(self, *, closing: bool) -> None:
        """Register the hooks; `closing`: whether the next step closes the window."""
        self.taps.attach()
        if self._gradients:
            self.incoming.attach()
            self.incoming.closing = closing
            own = set(map(id, self._model.parameters()))
            groups = [group for optimizer in self._optimizers for group in optimizer.param_groups]
            if groups and own.isdisjoint(id(p) for group in groups for p in group["params"]):
                self.taps.counter.say(NOT_ITS_OWN)

    def detach(self) -> None:
        """Remove all hooks."""
        self.taps.detach()
        self.incoming.detach()

    def census(self, steps: int, unseen: Sequence[Site], known: Sequence[Site]) -> dict[str, np.ndarray]:
        """Close the window and return its census; arguments as in `WindowAccumulator.close`."""
        norms = self.incoming.close if self._gradients else None
        together = is_distributed(self._model) if self._across_ranks is None else self._across_ranks
        columns = self.windows.close(steps, unseen, norms, known, across_ranks=together)
        self.incoming.clear()
        return columns

    def _add_site(self, index: int, site: Site, producer: Producer | None) -> None:
        module = None if producer is None else producer.module
        reason = self.incoming.add(index, module, site.size)
        if module is None and is_partly_frozen(self._model, site.producers):
            reason = PARTLY_FROZEN
        if reason:
            self.taps.unknown_norms.setdefault(reason, site.name)
