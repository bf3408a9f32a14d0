"""Recorder: the context manager for a user's own training loop."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import pandas as pd
import torch
from torch import nn
from torch.optim import Optimizer

from harness.attribution.collector import Witness
from harness.attribution.diagnosis import Diagnosis, diagnose
from harness.attribution.evidence import Evidence
from harness.attribution.explain import explain
from harness.detector.states import Thresholds
from harness.hooks.arguments import as_optimizers, check
from harness.hooks.batches import Batch, as_batches
from harness.hooks.censuses import Censuses
from harness.hooks.gradients import IncomingGradients
from harness.hooks.probe import Probe
from harness.hooks.ranks import is_distributed
from harness.hooks.schedule import due
from harness.hooks.sites import Site
from harness.hooks.taps import Taps
from harness.hooks.windows import Windows


class Recorder:
    """Counts, for every unit of a model, on which inputs its gate was open, while you train.

    Every forward of the model in the observed mode is counted; training is not changed by a single bit.

    Args:
        model: any module; only its own forwards count.
        optimizer: one or several; with it the censuses carry `grad_norm`.
        census_every: steps between two censuses; None: only when `census()` is called.
        observe: which forwards count: "train", "eval" or "all".
        probe: held-out batches that are passed through at every census, and once before the first step.
        gate_eps: a gate is open where |f'(z)| exceeds this.
        gradients: whether ∂L/∂z is watched.
        thresholds: of the states in the censuses.
        per_call: keep repeated calls that are fed by the same layer apart.
        axis: site name → unit axis, where the automatic choice is wrong.
        across_ranks: whether the processes of a distributed training take one census together; by default
            where the model is wrapped by DistributedDataParallel or sharded (FSDP2).
        evidence: whether what `diagnose()` needs is kept too (the optimizer has to be given): a dozen
            scalars of every step, the first and the latest parameters, 512 of the first and latest inputs.

    Raises:
        TypeError: `model` is no module, `optimizer` no optimizer.
        ValueError: an argument out of range, or evidence without an optimizer.

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
        evidence: bool = False,
    ) -> None:
        check(model, observe, census_every, gate_eps)
        self._model = model
        self._optimizers = as_optimizers(optimizer)
        self._every = census_every
        self._thresholds = thresholds or Thresholds()
        self._incoming = IncomingGradients(self._optimizers)
        self._stream = Windows("stream", self._incoming_site if gradients else None)
        options: dict[str, Any] = {"gate_eps": gate_eps, "per_call": per_call, "axis": axis}
        self._taps = Taps(model, self._stream, observe=observe, gradients=gradients, **options)
        self._taps.on_forward = self._incoming.forward if gradients else None
        self._probe = Probe(model, **options)
        self.probe = probe
        self._censuses = Censuses(self._thresholds)
        self._steps = 0
        self._attached = False
        self._warned: set[str] = set()
        self._gradients = gradients
        self._across_ranks = across_ranks
        if evidence and not self._optimizers:
            raise ValueError("evidence: the causes need the learning rates and updates; give optimizer= too")
        self._witness = Witness(model, self._optimizers, self._taps) if evidence else None

    # --- life ---------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Attach; with a probe, take the census before the first step."""
        self.attach()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close a window that is not empty, then detach."""
        try:
            nothing_yet = self._censuses.last is None and not self._stream.sites
            if self._stream.nonempty or (nothing_yet and self._taps.unseen(self._taps.called)):
                self._close()  # also when all there is cannot be observed: that is a result too
        except Exception:
            if error is None:  # never in place of the user's own
                raise
        finally:
            self.detach()

    def attach(self) -> None:
        """Register the hooks (the context manager does it).

        Raises:
            RuntimeError: already attached.
        """
        if self._attached:
            raise RuntimeError(
                "this Recorder is already attached: leave its block first, or make another one"
            )
        self._attached = True
        self._taps.attach()
        if self._gradients:
            self._incoming.attach()
            self._incoming.closing = due(self._steps + 1, self._every)
        if self._witness is not None:
            self._witness.attach()
        if self.probe is not None and self._steps == 0 and not self._censuses:
            self._censuses.add([self._probe.census(self._steps, self._taps)])

    def detach(self) -> None:
        """Remove every hook; what was recorded stays."""
        self._attached = False
        self._taps.detach()
        self._probe.taps.detach()
        self._incoming.detach()
        if self._witness is not None:
            self._witness.detach()

    # --- the loop -----------------------------------------------------------------------------------

    def step(self, loss: torch.Tensor | float | None = None) -> None:
        """Call once after each optimizer step: counts the step and takes the census when one is due.

        Args:
            loss: of this step, for the evidence: without it, wrong labels cannot be told. It is not kept
                alive, and read only when a census is taken.

        Raises:
            RuntimeError: not attached.
        """
        if not self._attached:
            raise RuntimeError("step() came outside the block: use `with Recorder(model) as recorder:`")
        self._steps += 1
        if self._witness is not None:
            self._witness.step(loss)
        self._incoming.called()
        if due(self._steps, self._every):
            self._close()
        self._incoming.closing = due(self._steps + 1, self._every)

    def census(self) -> pd.DataFrame:
        """Close the window now; after the block, the last census again.

        Returns:
            One row per site × unit (and evidence): the columns of `harness.detector.states.CENSUS_COLUMNS`.
            With nothing observed since the last census, rows with n = 0 and state `unobserved`.

        Raises:
            ValueError: the model has no activation at all.
            RuntimeError: nothing was recorded and the recorder is not attached.
        """
        if self._attached:
            self._close()
        latest = self.latest
        if latest is None:
            raise RuntimeError("census() came before anything was recorded: use `with Recorder(...)` first")
        return latest

    def _close(self) -> None:
        """Close the window: its columns are put together, the tables only when somebody looks."""
        unseen = [site for site in self._unseen() if site.name not in self._stream.restored_names]
        known = self._probe.windows.sites
        if not self._stream.sites and not unseen and not known and not self._stream.restored_names:
            raise ValueError(
                "no activation was seen in this model: expected modules such as nn.ReLU or calls like F.relu"
                " in its forward. Did a forward run in the observed mode?"
            )
        self._warn(unseen)
        norms = self._incoming.close if self._gradients else None
        together = is_distributed(self._model) if self._across_ranks is None else self._across_ranks
        columns = self._stream.close(self._steps, unseen, norms, known, across_ranks=together)
        self._incoming.clear()
        if self._witness is not None:
            self._witness.census()
        parts = [columns]
        if self.probe is not None:
            parts.append(self._probe.census(self._steps, self._taps))
        self._censuses.add(parts)

    # --- what was recorded --------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        """Completed `step()` calls."""
        return self._steps

    @property
    def probe(self) -> list[Batch] | None:
        """The held-out batches; where a new task begins, assign its own."""
        return self._probe.batches

    @probe.setter
    def probe(self, batches: Batch | Iterable[Batch] | None) -> None:
        self._probe.batches = None if batches is None else list(as_batches(batches))

    @property
    def latest(self) -> pd.DataFrame | None:
        """The last census, as `census()` returned it; None before the first."""
        return self._censuses.latest

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites so far, in order of their first call, then those that cannot be seen."""
        seen = self._stream.sites or self._probe.windows.sites
        return (*seen, *self._unseen())

    def history(self) -> pd.DataFrame:
        """Every census so far, oldest first."""
        return self._censuses.history()

    def explain(self, site: str, unit: int) -> str:
        """One unit's evidence in words: pre-activations, bias, incoming weights, gradient, when it died.

        Args:
            site: name of the site.
            unit: number of the unit.

        Raises:
            ValueError: no such site or unit.
            RuntimeError: there is no census yet.
        """
        history = self.history()
        if history.empty:
            raise RuntimeError("explain() needs a census: call census() or step() first")
        return explain(history, self.sites, self._model, site, unit)

    def evidence(self) -> Evidence:
        """The tables from which the causes are told; a few passes through the model over what was kept.

        Raises:
            RuntimeError: the recorder was not told to keep evidence.
        """
        if self._witness is None:
            raise RuntimeError("there is no evidence: expected Recorder(..., optimizer=…, evidence=True)")
        sites = [site for site in self.sites if site.size >= 0]
        return self._witness.evidence(sites, self._censuses.sites_in_question())

    def diagnose(self) -> Diagnosis:
        """Why units are dead: label, units, events, and the sentences (`print` it).

        Raises:
            RuntimeError: the recorder was not told to keep evidence, or there is no census yet.
        """
        evidence, history = self.evidence(), self.history()
        if history.empty:
            raise RuntimeError("diagnose() needs a census: call census() or step() first")
        return diagnose(history, evidence, self._thresholds)

    def drain(self) -> pd.DataFrame:
        """The censuses since the last call; they leave the history, to be kept elsewhere."""
        return self._censuses.drain()

    def state_dict(self) -> dict[str, Any]:
        """Steps and running windows (tensors and plain values): enough to continue them elsewhere."""
        state = {
            "steps": self._steps,
            "stream": self._stream.state_dict(),
            "probe": self._probe.windows.state_dict(),
        }
        return state if self._witness is None else state | {"evidence": self._witness.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue the windows of `state_dict`; the history itself is not part of it.

        Raises:
            ValueError: not a state of a Recorder.
        """
        if not {"steps", "stream", "probe"} <= set(state):
            raise ValueError(f"expected the keys steps, stream, probe, but got {', '.join(state)}")
        self._steps = int(state["steps"])
        self._stream.load_state_dict(state["stream"])
        self._probe.windows.load_state_dict(state["probe"])
        if self._witness is not None and "evidence" in state:
            self._witness.load_state_dict(state["evidence"])

    # --- inside -------------------------------------------------------------------------------------

    def _incoming_site(self, index: int, site: Site, producer: nn.Module | None) -> None:
        self._incoming.add(index, producer, site.size)

    def _unseen(self) -> list[Site]:
        return self._taps.unseen({*self._probe.taps.called, *self._taps.called})

    def _warn(self, unseen: list[Site]) -> None:
        for site in unseen:
            if site.name not in self._warned:
                self._warned.add(site.name)
                warnings.warn(f"{site.name} ({site.activation}) is unobserved: {site.reason}", stacklevel=3)
