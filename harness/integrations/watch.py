"""Code shared by the callbacks: one record of a training run driven by a third-party loop."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from typing import Any

import pandas as pd
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from harness.detector.states import Thresholds, dead_fraction
from harness.detector.verdict import HEALTHY, Verdict, last_census, verdict
from harness.recording.batches import Batch, as_batches
from harness.recording.distributed import is_distributed
from harness.recording.loss_scale import Scaler
from harness.recording.schedule import due
from harness.tracking.recorder import Recorder

NOTHING = "No verdict: no forward of {root} in training mode was seen, so nothing was counted."


class Watch:
    """A Recorder per training run, its history across checkpoints, and the numbers for a logger.

    Args:
        census_every: steps between two censuses; None: one, at the end.
        probe: held-out batches, passed through at every census and once before the first step.
        per_site: whether the metrics include the dead share of every site.
        healthy: dead share below which the network is called healthy.
        thresholds: thresholds of the states.
        options: further keyword arguments of `harness.Recorder`.

    Raises:
        TypeError, ValueError: as raised by `harness.Recorder` for its arguments.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
        >>> _ = nn.init.constant_(net[0].bias, -9)
        >>> watch = Watch(census_every=2)
        >>> _ = watch.start(net, [], steps=0)
        >>> for _ in range(2):
        ...     _ = net(torch.rand(16, 4))
        ...     metrics = watch.step()
        >>> metrics
        {'dead_fraction': 1.0}
        >>> watch.finish()
        >>> watch.verdict.text
        'Most units are dead: 8 of 8 units dead at the end (100.0 %; n = 32 on the training stream, rate
        < 8.9 %). 8 were dead at the first census, step 2.'
    """

    def __init__(
        self,
        *,
        census_every: int | None = 100,
        probe: Batch | Iterable[Batch] | None = None,
        per_site: bool = False,
        healthy: float = HEALTHY,
        thresholds: Thresholds | None = None,
        **options: Any,
    ) -> None:
        # report wrong arguments now, not hours later when training starts
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        Recorder(
            nn.Identity(), optimizer=optimizer, census_every=census_every, thresholds=thresholds, **options
        )
        if not 0 <= healthy <= 1:
            raise ValueError(f"healthy: expected a share in [0, 1], but got {healthy!r}")
        self.recorder: Recorder | None = None
        self._every, self._per_site, self._healthy = census_every, per_site, healthy
        self._probe = None if probe is None else list(as_batches(probe))
        self._thresholds, self._options = thresholds, options
        self._past = pd.DataFrame()  # censuses of earlier recorders
        self._loaded: dict[str, Any] | None = None
        self._attached = self._across = False
        self._told = 0  # step of the last census whose metrics were returned
        self._root = "the model"

    # --- the host's loop ------------------------------------------------------------------------------

    def start(
        self,
        root: nn.Module,
        optimizers: Sequence[Optimizer],
        *,
        steps: int,
        name: str = "the model",
        across_ranks: bool | None = None,
        scaler: Scaler | None = None,
    ) -> dict[str, float] | None:
        """Start or continue a training run.

        Args:
            root: the module whose forwards count.
            optimizers: optimizers of this run.
            steps: completed steps of the host: 0 begins a new record; otherwise the loaded state, or else the
                current record, continues.
            name: name of the root, for messages.
            across_ranks: whether all processes share one census; None: if the root is wrapped or sharded.
            scaler: gradient scaler of the host.

        Returns:
            The metrics of the census before the first step, if there is a probe.
        """
        self.stop()
        state = self._loaded or (self.state_dict() if steps else {})
        self._loaded, self._root = None, name
        self._past = _unpacked(state["history"]) if state else pd.DataFrame()
        chosen = self._options.get("across_ranks")
        if chosen is None:
            chosen = is_distributed(root) if across_ranks is None else across_ranks
            if not chosen and _ranks() > 1:
                warnings.warn(
                    f"{name} is counted on every rank by itself: no sums over the ranks", stacklevel=3
                )
        self._across = chosen and _ranks() > 1
        own: dict[str, Any] = {"census_every": None, "probe": self._probe, "thresholds": self._thresholds}
        own["scaler"] = scaler
        own |= self._options | {"across_ranks": self._across}
        self.recorder = Recorder(root, optimizer=optimizers, **own)
        self._told = int(state.get("steps", steps))
        windows = _of_this_rank(state.get("windows", []), self._across)
        nothing: dict[str, Any] = {"stream": {}, "probe": {}}
        self.recorder.load_state_dict((windows or nothing) | {"steps": self._told})
        self.recorder.attach()
        self._attached = True
        first = self.recorder.latest
        return None if first is None else self._metrics(first)

    def step(self, loss: Any = None) -> dict[str, float] | None:
        """Complete an optimizer step; returns its metrics if a census was due.

        Args:
            loss: loss of the step, if the host provides it.
        """
        assert self.recorder is not None
        self.recorder.step(loss=loss)
        if not due(self.steps, self._every):
            return None
        self.recorder._close()  # unlike `census`, this never raises if nothing was seen
        latest = self.recorder.latest
        return None if latest is None else self._metrics(latest)

    def finish(self) -> dict[str, float] | None:
        """End training: close a non-empty window and detach; returns its metrics, if any."""
        if self.recorder is None or not self._attached:
            return None
        self._attached = False
        self.recorder.__exit__(None, None, None)
        last = self.recorder.latest
        return None if last is None or int(last["step"].max()) <= self._told else self._metrics(last)

    def stop(self) -> None:
        """Stop after an interruption, like `finish`, but without other ranks, which may be gone."""
        if self.recorder is None or not self._attached:
            return
        self._attached = False
        if self._across:
            self.recorder.detach()
        else:
            broken = RuntimeError("the training broke off")
            self.recorder.__exit__(RuntimeError, broken, None)

    # --- what was recorded ----------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        """Completed steps, including those before a checkpoint was loaded."""
        return 0 if self.recorder is None else self.recorder.steps

    def history(self) -> pd.DataFrame:
        """Every census so far, oldest first, including those before a checkpoint was loaded."""
        own = pd.DataFrame() if self.recorder is None else self.recorder.history()
        if self.recorder is not None and self._past.empty:
            return own
        return self._past if own.empty else pd.concat([self._past, own], ignore_index=True)

    @property
    def verdict(self) -> Verdict | None:
        """The verdict on the censuses; None before the first."""
        history = self.history()
        if history.empty:
            return None
        return verdict(history, self._thresholds, healthy=self._healthy)

    def words(self) -> str:
        """The verdict in plain words, or a sentence that there is none."""
        found = self.verdict
        if found is None:
            return NOTHING.format(root=self._root)
        return f"Neuron health at step {found.step:,}. {found.text}"

    # --- checkpoints ----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Steps, the open windows of every rank and the history: tensors and plain values.

        In distributed training this is a collective call, like saving a checkpoint.
        """
        if self._loaded is not None:
            return self._loaded
        if self.recorder is None:
            return {}
        windows: list[Any] = [self.recorder.state_dict()]
        if self._attached and self._across:
            windows = [None] * dist.get_world_size()
            dist.all_gather_object(windows, self.recorder.state_dict())
        return {"steps": self.steps, "windows": windows, "history": _packed(self.history())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Make the next `start` continue from a state of `state_dict`.

        Raises:
            ValueError: `state` is not such a state.
        """
        if state and not {"steps", "windows", "history"} <= set(state):
            raise ValueError(f"expected the keys steps, windows, history, but got {', '.join(state)}")
        self._loaded = dict(state) or None

    # --- inside ---------------------------------------------------------------------------------------

    def _metrics(self, census: pd.DataFrame) -> dict[str, float]:
        """Dead shares by name, without unknown ones: no number does not mean 0 % dead."""
        self._told = self.steps
        rows = last_census(census)
        shares = {"dead_fraction": dead_fraction(rows)}
        if self._per_site:
            for site, units in rows.groupby("site", sort=False):
                shares[f"dead_fraction/{site}"] = dead_fraction(units)
        return {name: share for name, share in shares.items() if share == share}


class Watching:
    """The parts of a callback's watch that every callback exposes."""

    _watch: Watch

    @property
    def recorder(self) -> Recorder | None:
        """The Recorder of the latest training run; None before the first."""
        return self._watch.recorder

    @property
    def verdict(self) -> Verdict | None:
        """The verdict on the censuses; None before the first."""
        return self._watch.verdict

    def history(self) -> pd.DataFrame:
        """Every census so far, oldest first, including those before a checkpoint was loaded."""
        return self._watch.history()


def _ranks() -> int:
    """Number of processes in this training run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _of_this_rank(windows: Sequence[Mapping[str, Any]], across: bool) -> dict[str, Any]:
    """The open windows with which this process continues; none if the number of processes has changed."""
    ranks, rank = (dist.get_world_size(), dist.get_rank()) if across else (1, 0)
    return dict(windows[rank]) if len(windows) == ranks else {}


def _packed(history: pd.DataFrame) -> Tensor:
    """A history as the bytes of a Parquet file (uint8): small, and safe to load with `weights_only`."""
    buffer = BytesIO()
    history.to_parquet(buffer, compression="zstd", index=False)
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


def _unpacked(history: Tensor) -> pd.DataFrame:
    return pd.read_parquet(BytesIO(history.cpu().numpy().tobytes()))
