"""scan: find the dead units of any model in one pass over inputs, without side effects."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from harness.detector.counts import sentence
from harness.detector.states import STATES, Thresholds, dead_fraction, summarise
from harness.graph.plan import Plan
from harness.hooks.arguments import check_loss_function
from harness.hooks.masks import Masks, masks_of
from harness.recording.attributes import copy_of_lazy, has_lazy_parts
from harness.recording.batches import Batch, evaluation
from harness.recording.census_html import census_html
from harness.recording.model_calls import outputs
from harness.recording.recorder import ActivationRecorder

RUNNING = (
    "Norms used their running statistics, as evaluation does: in training mode, as a Recorder sees it, other "
    "units may be dead."
)


class DeadUnitsError(RuntimeError):
    """More units are dead than `Report.raise_if` allows, or none was observed.

    Example:
        >>> issubclass(DeadUnitsError, RuntimeError)
        True
    """


@dataclass(frozen=True)
class Report:
    """Result of a scan; `print(report)` shows the table.

    Attributes:
        units: the census, one row per site × unit.
        plan: what was observed and how it was found; `print` it.
        running: whether norms used running statistics, so that other units may be dead in training mode.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 4), nn.ReLU())
        >>> _ = nn.init.constant_(model[0].bias, -9)
        >>> report = scan(model, torch.rand(50, 2))
        >>> report.dead_fraction, report.summary.dead.tolist()
        (1.0, [4])
    """

    units: pd.DataFrame
    plan: Plan = field(default_factory=Plan, repr=False)
    running: bool = field(default=False, repr=False)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row per site: units, n, rate and the number of units in each state."""
        return summarise(self.units)

    @cached_property
    def dead_fraction(self) -> float:
        """Share of dead units among the observed ones; NaN if nothing was observed."""
        return dead_fraction(self.units)

    def raise_if(self, dead: float) -> None:
        """Raise DeadUnitsError if the dead share is strictly greater than `dead`, or nothing was observed.

        Raises:
            TypeError: `dead` is not a number.
            ValueError: `dead` is not a share in [0, 1].
        """
        if isinstance(dead, bool) or not isinstance(dead, Real):
            raise TypeError(f"dead: expected a share in [0, 1], but got {dead!r}")
        if not 0 <= dead <= 1:
            raise ValueError(f"dead: expected a share in [0, 1], but got {dead!r}")
        if not self.dead_fraction <= dead:  # also True for NaN
            raise DeadUnitsError(f"{sentence(self.units)} Allowed: {100 * dead:g} %.")

    def _repr_html_(self) -> str:
        return census_html(self.units, self.plan.sites, "One pass in evaluation mode")

    def __str__(self) -> str:
        """The table of sites and the verdict in one sentence."""
        text = f"{_table(self.summary)}\n{sentence(self.units)}"
        return f"{text} {RUNNING}" if self.running and self.dead_fraction > 0 else text


def scan(
    model: nn.Module,
    batches: Batch | Iterable[Batch],
    *,
    loss: Callable[[Any, Any], Tensor] | None = None,
    gate_eps: float = 1e-6,
    thresholds: Thresholds | None = None,
    per_call: bool = False,
    axis: dict[str, int] | None = None,
    mask: Masks | None = None,
) -> Report:
    """Pass over the batches in evaluation mode, and report which units are dead on them.

    The model's modes, buffers and gradients and all random states are restored afterwards; one with lazy
    parameters stays lazy, as a copy of it is scanned.

    Args:
        model: any module.
        batches: one batch or any iterable of them. A batch is a tensor; a tuple or list whose first item
            is the input (or the first k items, if the forward takes k inputs), as from a loader; or a dict of
            keyword arguments. A list of tensors that agree in length and differ in type or shape is one
            batch.
        loss: called as loss(output, batch); if given, gradients are observed and units can be `starved`.
        gate_eps: a gate is open where |f'(z)| exceeds this.
        thresholds: thresholds of the states.
        per_call: whether to keep repeated calls that the same layer feeds apart.
        axis: site name → unit axis, if the automatic choice is wrong.
        mask: which inputs count, to exclude padding: (batch,) or (batch, positions), True or 1 where an
            input counts. A tensor for a single batch, one for each batch, or a function batch → mask or None.
            By default the `attention_mask` of a dict. `Recorder.mask` describes its effect at a site.

    Raises:
        TypeError: `model` is not a module, `loss` is not a function, or a batch is of another kind.
        ValueError: there is no batch, the model or `loss` raised on one, it has no activation, `loss` did not
            return a scalar, or the number of masks differs from that of batches.

    Example:
        >>> layer = nn.Linear(1, 2)
        >>> _ = layer.weight.data.copy_(torch.tensor([[1.0], [-1.0]])), layer.bias.data.zero_()
        >>> report = scan(nn.Sequential(layer, nn.ReLU()), torch.rand(2000, 1) + 1)
        >>> report.dead_fraction, report.units.state.tolist()
        (0.5, ['always_on', 'dead'])
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, but got {type(model).__name__}")
    if loss is not None:
        check_loss_function(loss)
    if has_lazy_parts(model):  # their first values are drawn by the first forward: not by this one
        model = copy_of_lazy(model)
    recorder = ActivationRecorder(
        model,
        census_every=None,
        observe="eval",
        gate_eps=gate_eps,
        gradients=loss is not None,
        thresholds=thresholds,
        per_call=per_call,
        axis=axis,
    )
    came, masks = 0, masks_of(mask)
    with evaluation(model), _kept_gradients(model), recorder:
        for batch, output in outputs(
            model, batches, graph=loss is not None, before=lambda batch: recorder._mask(masks(batch))
        ):
            came += 1
            if loss is not None:
                with torch.enable_grad():
                    _scalar(_called(loss, output, batch)).backward()
        if not came:
            raise ValueError("batches: expected at least one batch, but none came")
        if isinstance(mask, Sequence) and len(mask) > came:
            raise ValueError(f"mask: expected one for each batch, but got {len(mask)} for {came}")
        units = recorder.census()
    running = any(getattr(part, "running_mean", None) is not None for part in model.modules())
    return Report(units, recorder.plan, running)


def _called(loss: Callable[[Any, Any], Any], output: Any, batch: Any) -> Any:
    """The loss of a batch; an error in it says how it was called."""
    try:
        return loss(output, batch)
    except (torch.OutOfMemoryError, Warning):
        raise
    except Exception as error:
        raise ValueError(
            "loss: it raised when it was called as loss(output, batch), with the whole batch "
            f"({type(error).__name__}: {str(error).strip().partition(chr(10))[0]}). For a loss of an output "
            "and a target, give lambda output, batch: criterion(output, batch[1])"
        ) from error


def _scalar(value: Any) -> Tensor:
    if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
        kind = (
            f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        )
        raise ValueError(
            f"loss: expected a function (output, batch) → scalar with a graph, but it returned {kind}"
        )
    return value


@contextmanager
def _kept_gradients(model: nn.Module) -> Iterator[None]:
    """Set every parameter's `.grad` to None in the block, and restore it afterwards."""
    kept = [(p, p.grad) for p in model.parameters()]
    for parameter, _ in kept:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in kept:
            parameter.grad = gradient


def _table(summary: pd.DataFrame) -> str:
    """Format the per-site table as text; only dead, rare, active and states that occur have columns."""
    shown = [s for s in STATES if s in ("dead", "rare", "active") or summary[s].any()]
    table = summary[["site", "units", "n", *shown]].copy()
    table["median rate"] = summary["rate"].map(lambda r: "-" if pd.isna(r) else f"{100 * r:.1f} %")
    if summary["grad_rms"].notna().any():
        table["gradient"] = summary["grad_rms"].map(lambda g: "-" if pd.isna(g) else f"{g:.2e}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text = table.to_string(index=False, formatters={"n": "{:,}".format}, justify="right")
    rule = "─" * max(map(len, text.splitlines()))
    head, *rows = text.splitlines()
    return "\n".join([head, rule, *rows, rule])
