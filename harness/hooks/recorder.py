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

from harness.detector.diagnosis import Diagnosis, diagnose
from harness.detector.evidence import Evidence
from harness.detector.states import Thresholds
from harness.hooks.batches import Batch, as_batches, call, device_of, evaluation
from harness.hooks.evidence import Witness
from harness.hooks.explain import explain
from harness.hooks.gradients import IncomingGradients
from harness.hooks.ranks import is_distributed
from harness.hooks.schedule import due
from harness.hooks.sites import Site
from harness.hooks.taps import Taps
from harness.hooks.windows import Windows, frame

OBSERVE = ("train", "eval", "all")


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
        if not isinstance(model, nn.Module):
            raise TypeError(f"model: expected a torch.nn.Module, but got {type(model).__name__}")
        if observe not in OBSERVE:
            raise ValueError(f"observe: expected one of {', '.join(OBSERVE)}, but got {observe!r}")
        whole = isinstance(census_every, int) and not isinstance(census_every, bool)
        if census_every is not None and (not whole or census_every < 1):
            raise ValueError(
                f"census_every: expected a whole number above 0 or None, but got {census_every!r}"
            )
        if not isinstance(gate_eps, int | float) or not 0 <= gate_eps < 1:
            raise ValueError(f"gate_eps: expected a number at least 0 and below 1, but got {gate_eps!r}")
        self._model = model
        self._optimizers = _optimizers(optimizer)
        self._every = census_every
        self._thresholds = thresholds or Thresholds()
        self._incoming = IncomingGradients(self._optimizers)
        self._stream = Windows("stream", self._incoming_site if gradients else None)
        options: dict[str, Any] = {"gate_eps": gate_eps, "per_call": per_call, "axis": axis}
        self._taps = Taps(model, self._stream, observe=observe, gradients=gradients, **options)
        self._taps.on_forward = self._incoming.forward if gradients else None
        self.probe = probe
        self._probed = Windows("probe")
        self._probe_taps = Taps(model, self._probed, observe="eval", gradients=False, **options)
        self._history: list[dict[str, Any]] = []
        self._latest: list[dict[str, Any]] | None = None  # the parts of the last census
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
            nothing_yet = self._latest is None and not self._stream.sites
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
        if self._probe is not None and self._steps == 0 and not self._history:
            self._store([self._probe_census()])

    def detach(self) -> None:
        """Remove every hook; what was recorded stays."""
        self._attached = False
        self._taps.detach()
        self._probe_taps.detach()
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
        self._need_attached("step()")
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
        if not self._attached:
            if self._latest is None:
                raise RuntimeError(
                    "census() came before anything was recorded: use `with Recorder(...)` first"
                )
            return self._frame(self._latest)
        self._close()
        return self._frame(self._latest or [])

    def _close(self) -> None:
        """Close the window: its columns are put together, the tables only when somebody looks."""
        unseen = self._taps.unseen({*self._probe_taps.called, *self._taps.called})
        unseen = [site for site in unseen if site.name not in self._stream.restored_names]
        known = self._probed.sites
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
        if self._probe is not None:
            parts.append(self._probe_census())
        self._store(parts)

    # --- what was recorded --------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        """Completed `step()` calls."""
        return self._steps

    @property
    def probe(self) -> list[Batch] | None:
        """The held-out batches; where a new task begins, assign its own."""
        return self._probe

    @probe.setter
    def probe(self, batches: Batch | Iterable[Batch] | None) -> None:
        self._probe = None if batches is None else list(as_batches(batches))

    @property
    def latest(self) -> pd.DataFrame | None:
        """The last census, as `census()` returned it; None before the first."""
        return None if self._latest is None else self._frame(self._latest)

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites so far, in order of their first call, then those that cannot be seen."""
        seen = self._stream.sites or self._probed.sites
        return (*seen, *self._taps.unseen({*self._probe_taps.called, *self._taps.called}))

    def history(self) -> pd.DataFrame:
        """Every census so far, oldest first."""
        if not self._history:
            return frame({c: v[:0] for c, v in _nothing().items()}, self._thresholds)
        return self._frame(self._history)

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
        rows = history[(history["site"] == site) & (history["unit"] == unit)]
        if rows.empty:
            known = [s for s in self.sites if s.size >= 0]
            names = ", ".join(f"{s.name} ({s.size} units)" for s in known)
            raise ValueError(
                f"expected a site and one of its units, but got {site!r}, {unit}. Sites: {names}"
            )
        producer = next((s.producer for s in self.sites if s.name == site), None)
        layer = None if producer is None else dict(self._model.named_modules()).get(producer)
        return explain(rows, layer, unit)

    def evidence(self) -> Evidence:
        """The tables from which the causes are told; a few passes through the model over what was kept.

        Raises:
            RuntimeError: the recorder was not told to keep evidence.
        """
        if self._witness is None:
            raise RuntimeError("there is no evidence: expected Recorder(..., optimizer=…, evidence=True)")
        last = self.latest
        asked: set[str] = set()
        if last is not None:
            broken = last["state"].eq("non_finite").any()
            asked = set(last["site"] if broken else last.loc[last["state"].eq("dead"), "site"])
        return self._witness.evidence([site for site in self.sites if site.size >= 0], asked)

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
        drained, self._history = self.history(), []
        return drained

    def state_dict(self) -> dict[str, Any]:
        """Steps and running windows (tensors and plain values): enough to continue them elsewhere."""
        state = {
            "steps": self._steps,
            "stream": self._stream.state_dict(),
            "probe": self._probed.state_dict(),
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
        self._probed.load_state_dict(state["probe"])
        if self._witness is not None and "evidence" in state:
            self._witness.load_state_dict(state["evidence"])

    # --- inside -------------------------------------------------------------------------------------

    def _incoming_site(self, index: int, site: Site, producer: nn.Module | None) -> None:
        self._incoming.add(index, producer, site.size)

    def _probe_census(self) -> dict[str, Any]:
        """One pass over the probe, seen by taps of its own."""
        device = device_of(self._model)
        self._probe_taps.attach()
        try:
            with self._taps.paused(), evaluation(self._model), torch.no_grad():
                for batch in self._probe or ():
                    call(self._model, batch, device)
        finally:
            self._probe_taps.detach()
        return self._probed.close(self._steps, self._probe_taps.unseen(self._probe_taps.called), None)

    def _store(self, parts: list[dict[str, Any]]) -> None:
        self._history += parts
        self._latest = parts

    def _frame(self, parts: list[dict[str, Any]]) -> pd.DataFrame:
        return pd.concat([frame(columns, self._thresholds) for columns in parts], ignore_index=True)

    def _warn(self, unseen: list[Site]) -> None:
        for site in unseen:
            if site.name not in self._warned:
                self._warned.add(site.name)
                warnings.warn(f"{site.name} ({site.activation}) is unobserved: {site.reason}", stacklevel=3)

    def _need_attached(self, what: str) -> None:
        if not self._attached:
            raise RuntimeError(f"{what} came outside the block: use `with Recorder(model) as recorder:`")


def _optimizers(given: Optimizer | Sequence[Optimizer] | None) -> list[Optimizer]:
    several = given if isinstance(given, Sequence) else [] if given is None else [given]
    found = list(several)
    for one in found:
        if not isinstance(one, Optimizer):
            raise TypeError(f"optimizer: expected torch.optim optimizers, but got {type(one).__name__}")
    return found


def _nothing() -> dict[str, Any]:
    return Windows("stream").close(0, [Site("", "", -1, None, None)], None)
