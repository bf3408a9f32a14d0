"""Auto: when a census finds too many dead units, the diagnosis chooses what to do, if anything.

Our own method. The label is that of a diagnosis of all evidence gathered so far, as in a report. A table
(`harness.remedies.chooser`) maps it to acts; an act without effect by the next check is not repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol

import pandas as pd
import torch
from torch import nn
from torch.optim import Optimizer

from harness.detector.states import dead_fraction
from harness.detector.verdict import last_census
from harness.graph.unit_connections import UnitConnections
from harness.hooks.arguments import as_optimizers
from harness.recording.batches import Batch
from harness.remedies.chooser import BIAS_LIFT, LOWER_RATE, NO_DECAY, REDO, REDRAW, Chooser, Table
from harness.remedies.events import RemedyEvent
from harness.remedies.initializers import DrawRows, Initializer, make_draw
from harness.remedies.lifting import lift, liftable
from harness.remedies.lowered_rates import LoweredRates
from harness.remedies.optimizer_state import OptimizerStateView, TorchOptimizerState
from harness.remedies.recycle import recycle
from harness.remedies.redrawing import redraw_layers
from harness.remedies.wiring import Wiring, wire

KIND = "auto"
LOWER = 3.0  # divisor of the learning rate
LIFTED = 0.1  # share of the inputs on which a lifted unit opens
Doing = Callable[[], list[RemedyEvent]]  # performs one act


class Diagnosed(Protocol):
    """A `harness.Recorder` that gathers evidence."""

    @property
    def steps(self) -> int: ...

    @property
    def gathers_evidence(self) -> bool: ...

    @property
    def census_step(self) -> int: ...

    @property
    def latest(self) -> pd.DataFrame | None: ...

    def diagnose(self) -> Any: ...

    def own_writes(self) -> AbstractContextManager[None]: ...


class Auto:
    """Lets the diagnosis choose what to do about dead units: call `step` after each `recorder.step()`.

    It checks every new census. If the dead share exceeds `above`, the recorder's diagnosis names the cause,
    and the acts for that cause are performed: raise the biases of silent units, reinitialise units, lower the
    learning rate, or switch weight decay off. The next check comes at least `every` steps later. Acts without
    effect by then are not repeated; if none is left, one event says so.

    A schedule that computes the rate from its own base rate (`LambdaLR`) would undo a lowered rate: multiply
    its rate by `rate`.

    Args:
        model: any model; a forward pass finds the layers before and after each site.
        optimizer: the optimizer of its parameters, or several.
        recorder: a `harness.Recorder(model, optimizer=optimizer, evidence=True)` in whose block the training
            runs.
        above: dead share above which to act.
        every: least number of steps between two acts.
        share: share of the inputs on which a lifted unit should open.
        generator: CPU generator for the new weights; None: torch's global one.
        init: fills a whole weight in place, (weight, generator); None: PyTorch's default initialisation.
        table: cause → acts in the order in which they are tried; None: `harness.remedies.chooser.TABLE`.

    Raises:
        ValueError: a number is out of range, an act is unknown, or the recorder gathers no evidence.

    Example:
        >>> import harness
        >>> model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 1))
        >>> _ = nn.init.constant_(model[0].bias, -20.0)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        >>> x = torch.randn(64, 4)
        >>> with harness.Recorder(model, optimizer=optimizer, census_every=5, evidence=True) as recorder:
        ...     remedy = harness.remedies.Auto(model, optimizer, recorder)
        ...     for _ in range(6):
        ...         model(x).square().mean().backward()
        ...         optimizer.step()
        ...         optimizer.zero_grad()
        ...         recorder.step()
        ...         for event in remedy.step(x):
        ...             print(event.describe())
        auto: the whole network (100 % of the units dead, cause bias_init: bias_lift)
        bias_lift: 32 units of 1 (opened on 0.11 of the inputs)
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | Sequence[Optimizer],
        recorder: Diagnosed,
        *,
        above: float = 0.1,
        every: int = 10,
        share: float = LIFTED,
        generator: torch.Generator | None = None,
        init: Initializer | None = None,
        table: Table | None = None,
    ) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"share: expected a number above 0 and at most 1, but got {share!r}")
        if not recorder.gathers_evidence:
            raise ValueError(
                "recorder: expected harness.Recorder(model, optimizer=…, evidence=True), since the diagnosis"
                " chooses, but it gathers no evidence"
            )
        self._chooser = Chooser(above, every, table)
        self._model, self._recorder, self._share = model, recorder, share
        self._optimizers = as_optimizers(optimizer)
        self._state, self._rates = TorchOptimizerState(self._optimizers), LoweredRates(self._optimizers)
        self._draw = make_draw(init, generator)
        self._seen = -1  # step of the last census that was checked

    @property
    def rate(self) -> float:
        """Factor by which the learning rate has been multiplied so far."""
        return LOWER**-self._chooser.lowered

    def step(self, batch: Batch) -> list[RemedyEvent]:
        """Check the recorder's latest census, if it is new, and do what its diagnosis asks for.

        Args:
            batch: training inputs; the acts change units that are silent on them.

        Returns:
            The events, starting with the choice; empty at most steps.
        """
        if self._recorder.census_step <= self._seen or (census := self._recorder.latest) is None:
            return []
        self._seen = self._recorder.census_step
        return choose(
            self._chooser,
            self._recorder.steps,
            dead_share(census),
            lambda: str(self._recorder.diagnose().label),
            self._acts(batch),
            self._recorder.own_writes,
        )

    def state_dict(self) -> dict[str, Any]:
        """Memory of past acts, as plain values."""
        return {"seen": self._seen, "chooser": self._chooser.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._seen = state["seen"]
        self._chooser.load_state_dict(state["chooser"])
        self._rates.keep(1 / self.rate)

    def _acts(self, batch: Batch) -> dict[str, Doing]:
        return {
            **unit_acts(self._model, batch, self._state, self._draw, self._share),
            LOWER_RATE: self._lower_rate,
            NO_DECAY: partial(switch_decay_off, self._optimizers),
        }

    def _lower_rate(self) -> list[RemedyEvent]:
        self._rates.lower(LOWER)
        return lowered(self._chooser)


def unit_acts(
    model: nn.Module,
    batch: Batch,
    state: OptimizerStateView,
    draw: DrawRows,
    share: float = LIFTED,
    renewable: Callable[[Wiring], Sequence[UnitConnections]] = lambda wiring: wiring.connections,
) -> dict[str, Doing]:
    """Return the acts on units: name → function that performs it.

    Args:
        model: any model.
        batch: training inputs; the acts change units that are silent on them.
        state: the optimizer's state.
        draw: draws new weights.
        share: share of the inputs on which a lifted unit should open.
        renewable: selects the sites whose units may be reinitialised.
    """

    def renewed(act: Callable[[Sequence[UnitConnections], Wiring], list[RemedyEvent]]) -> list[RemedyEvent]:
        wiring = wire(model, batch)
        return act(renewable(wiring), wiring)

    return {
        BIAS_LIFT: lambda: lift(model, batch, share, state, liftable(model, batch)[0]),
        REDO: lambda: renewed(lambda units, wired: recycle(units, wired.magnitudes, state, 0.0, draw)),
        REDRAW: lambda: renewed(lambda units, wired: redraw_layers(units, wired.magnitudes, state, draw)),
    }


def choose(
    chooser: Chooser,
    step: int,
    share: float,
    cause: Callable[[], str],
    acts: Mapping[str, Doing],
    own_writes: Callable[[], AbstractContextManager[None]],
) -> list[RemedyEvent]:
    """Act at a census: choose acts, perform them, and return the choice and what they did as events.

    Args:
        chooser: the chooser of the training.
        step: completed steps.
        share: share of the observed units that are dead.
        cause: runs the diagnosis; called only if a decision is due.
        acts: name → function that performs it.
        own_writes: context in which writes to parameters count as the training's own.
    """
    if not chooser.is_due(step, share):
        return []
    label, unable = cause(), list[str]()
    dead = f"{100 * share:.3g} % of the units dead, cause {label}"
    while chosen := chooser.next(label, share):
        with own_writes():
            events = [event for name in chosen for event in acts[name]()]
        if events:
            chooser.done(step, share, chosen)
            return [RemedyEvent(KIND, "", 0, f"{dead}: {' and '.join(chosen)}"), *events]
        chooser.fail(chosen)
        unable += chosen
    tried = chooser.give_up(share)
    why = "nothing that is left to try" if tried else "there is no act for it"
    if unable and not tried:
        why = f"no unit on which {' or '.join(dict.fromkeys(unable))} could act"
    return [RemedyEvent(KIND, "", 0, f"{dead}: {why}, so nothing is done")]


def dead_share(census: pd.DataFrame) -> float:
    """Share of the observed units that a census finds dead, on the probe if there is one; NaN if unknown."""
    return float(dead_fraction(last_census(census)))


def lowered(chooser: Chooser) -> list[RemedyEvent]:
    """Return the event for a lowered learning rate, before the chooser counts it."""
    return [
        RemedyEvent(
            LOWER_RATE, "", 0, f"its learning rate / {LOWER:g}, in all / {LOWER ** (chooser.lowered + 1):g}"
        )
    ]


def switch_decay_off(optimizers: Sequence[Optimizer]) -> list[RemedyEvent]:
    """Set the weight decay of every group to 0; no event if it already is."""
    before = [float(group.get("weight_decay", 0.0)) for one in optimizers for group in one.param_groups]
    if not any(before):
        return []
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if "weight_decay" in group:
                group["weight_decay"] = 0.0
    return [RemedyEvent(NO_DECAY, "", 0, f"weight decay {max(before):g} switched off")]
