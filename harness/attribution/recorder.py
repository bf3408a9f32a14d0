"""Recorder: counts during training, and explains why units died."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from harness.attribution.collector import EvidenceCollector
from harness.attribution.diagnosis import Diagnosis, diagnose
from harness.attribution.evidence import Evidence
from harness.attribution.explain import explain
from harness.attribution.unit_causes import unit_cause_words
from harness.hooks.arguments import check_one_number
from harness.recording.recorder import ActivationRecorder

TO_EXPLAIN = ("dead", "starved", "non_finite")  # states that need passes of the network to explain


class Recorder(ActivationRecorder):
    """An ActivationRecorder that also gathers why units die; `harness.Recorder` adds storage on disk.

    Args:
        model: as in `ActivationRecorder`.
        evidence: whether to gather what `diagnose()` needs (requires the optimizer).
        options: further arguments of `ActivationRecorder`.

    Raises:
        TypeError, ValueError: as in `ActivationRecorder`; or evidence without an optimizer.
    """

    def __init__(self, model: nn.Module, *, evidence: bool = False, **options: Any) -> None:
        super().__init__(model, **options)
        self._collector: EvidenceCollector | None = None
        self._diagnosed: tuple[int, Diagnosis] | None = None  # rows of history then, and it
        self._known: tuple[tuple[int, int], Evidence] | None = None  # steps and rows then, and it
        if evidence:
            if not self._optimizers:
                raise ValueError("evidence: the causes need learning rates and updates; give optimizer= too")
            seen = {name: options[name] for name in ("gate_eps", "per_call", "axis") if name in options}
            self._collector = EvidenceCollector(self._model, self._optimizers, self._taps, seen)
            self.add_listener("evidence", self._collector)

    @property
    def gathers_evidence(self) -> bool:
        """Whether it gathers what `diagnose()` needs."""
        return self._collector is not None

    def explain(self, site: str, unit: int) -> str:
        """Describe one unit: pre-activations, bias, incoming weights, gradient, when and why it died.

        The cause comes from `diagnose()`, which runs if it has not since the latest census.

        Args:
            site: name of the site.
            unit: number of the unit.

        Raises:
            ValueError: the site or unit does not exist.
            RuntimeError: there is no census yet.
        """
        history = self.history()
        if history.empty:
            raise RuntimeError(f"explain() {self._lacks}")
        own = None if self._collector is None else self._collector.own_parameters
        return explain(
            history, self.sites, self._model, site, unit, own, lambda: self._cause_of_death(site, unit)
        )

    def evidence(self) -> Evidence:
        """The tables from which causes are found; runs the model on the copied inputs.

        Raises:
            RuntimeError: the recorder was created without evidence.
        """
        return self._gathered(replay=True)

    def diagnose(self) -> Diagnosis:
        """Explain why units are dead: label, units, events, and the sentences (`print` it).

        Raises:
            RuntimeError: the recorder was created without evidence, or there is no census yet.
        """
        history, evidence = self.history(), self._gathered_anew()
        if history.empty:
            raise RuntimeError(f"diagnose() {self._lacks}")
        diagnosis = diagnose(history, evidence, self._thresholds)
        self._diagnosed = len(history), diagnosis
        return diagnosis

    @property
    def _lacks(self) -> str:
        """What is missing if there is no census."""
        if self.steps:
            return (
                f"has nothing to speak of: in {self.steps:,} steps no activation was seen (see recorder.plan)"
            )
        return "needs a census: call census() or step() first"

    @contextmanager
    def own_writes(self) -> Iterator[None]:
        """Context manager: writes into the parameters belong to the training and are not evidence of surgery.

        Forward passes in the block are not counted either. Use it between two steps.
        """
        if self._collector is None:
            yield
            return
        with self._collector.outside_training():
            yield

    def _check_loss(self, loss: Any) -> None:
        if self._collector is not None:
            check_one_number(loss)

    def _latest_evidence(self) -> Evidence:
        """The evidence of the latest diagnosis if nothing has happened since; else gathered again."""
        if self._known is not None and self._known[0] == (self.steps, len(self.history())):
            return self._known[1]
        return self._gathered_anew()

    def _gathered_anew(self) -> Evidence:
        """Current evidence, without passes of the network if every unit is alive and receives a gradient."""
        history = self.history()
        healthy = not history.empty and not history["state"].isin(TO_EXPLAIN).any()
        learning = healthy and bool(history.loc[history["evidence"] == "stream", "grad_rms"].gt(0).all())
        evidence = self._gathered(replay=not learning)
        self._known = (self.steps, len(history)), evidence
        return evidence

    def _gathered(self, *, replay: bool) -> Evidence:
        if self._collector is None:
            raise RuntimeError("there is no evidence: expected Recorder(..., optimizer=…, evidence=True)")
        sites = [site for site in self.sites if site.size >= 0]
        error = self._listeners.error("evidence")
        return self._collector.evidence(sites, self._log.latest_observed, error, replay=replay)

    def _cause_of_death(self, site: str, unit: int) -> str:
        """The cause in words, from the latest diagnosis; makes one if there is none for this census."""
        if self._collector is None:
            return "not known: it takes Recorder(..., optimizer=…, evidence=True)"
        if self._diagnosed is None or self._diagnosed[0] != len(self.history()):
            try:
                self.diagnose()
            except Exception as error:  # other facts about the unit must not be lost
                return f"not known: diagnose() failed ({type(error).__name__}: {error})"
        assert self._diagnosed is not None
        return unit_cause_words(self._diagnosed[1].units, site, unit)
