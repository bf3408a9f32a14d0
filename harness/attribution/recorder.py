"""Recorder: counts while you train, and tells why units died."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import nn
from torch.optim import Optimizer

from harness.attribution.collector import EvidenceCollector
from harness.attribution.diagnosis import Diagnosis, diagnose
from harness.attribution.evidence import Evidence
from harness.attribution.explain import explain
from harness.detector.states import Thresholds
from harness.hooks.batches import Batch
from harness.hooks.loss_scale import Scaler
from harness.hooks.recorder import ActivationRecorder
from harness.hooks.unit_statistic import UnitStatistic


class Recorder(ActivationRecorder):
    """Counts, for every unit of a model, on which inputs its gate was open, while you train.

    Every forward of the model in the observed mode is counted; training is not changed by a single bit.

    Args:
        model: any module; its forwards count, and those of parts that are called by themselves, as in
            `model.encode(x)`.
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
        root_only: only the model's own forwards count, not those of its parts.
        statistics: of one's own, counted for every unit; their columns follow the census's own (see
            `docs/statistics.md`).
        scaler: the `torch.amp.GradScaler` of the training, if it has one: `grad_rms` is then divided by the
            scale that each backward ran under, and inputs whose gradients are not finite (of a step that the
            scaler skips) count in no `grad_rms`. A Recorder cannot know by itself that a loss was multiplied:
            without `scaler=`, `grad_rms` is of the scaled loss. `grad_norm` is unscaled either way.
        evidence: whether to gather what `diagnose()` needs (the optimizer has to be given): ten scalars of
            every step, the first and the latest parameters, 512 of the first and latest inputs.

    Raises:
        TypeError: `model` is no module, `optimizer` no optimizer, `scaler` no scaler.
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
        root_only: bool = False,
        statistics: Sequence[UnitStatistic] = (),
        scaler: Scaler | None = None,
        evidence: bool = False,
    ) -> None:
        super().__init__(
            model,
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
        self._collector: EvidenceCollector | None = None
        if evidence:
            if not self._optimizers:
                raise ValueError("evidence: the causes need learning rates and updates; give optimizer= too")
            options = {"gate_eps": gate_eps, "per_call": per_call, "axis": axis}
            self._collector = EvidenceCollector(model, self._optimizers, self._taps, options)
            self.add_listener("evidence", self._collector)

    def explain(self, site: str, unit: int) -> str:
        """One unit in words: pre-activations, bias, incoming weights, gradient, when it died.

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
        own = None if self._collector is None else self._collector.own_parameters
        return explain(history, self.sites, self._model, site, unit, own)

    def evidence(self) -> Evidence:
        """The tables that the causes follow from; runs the model over the inputs that were copied.

        Raises:
            RuntimeError: the recorder was made without evidence.
        """
        if self._collector is None:
            raise RuntimeError("there is no evidence: expected Recorder(..., optimizer=…, evidence=True)")
        sites = [site for site in self.sites if site.size >= 0]
        return self._collector.evidence(sites, self._log.latest_observed, self._listeners.error("evidence"))

    def diagnose(self) -> Diagnosis:
        """Why units are dead: label, units, events, and the sentences (`print` it).

        Raises:
            RuntimeError: the recorder was made without evidence, or there is no census yet.
        """
        evidence, history = self.evidence(), self.history()
        if history.empty:
            raise RuntimeError("diagnose() needs a census: call census() or step() first")
        return diagnose(history, evidence, self._thresholds)
