"""Apply a run's remedy during its training, and report what it did.

A remedy acts after a step, once losses, test and census have been written, but never after the last step.
It decides on the batch of that step. ReDo's scores and silent units come from an extra forward pass after the
update, in training mode, which the recorder does not count. Continual backprop reads the inputs of each layer
in the step's own forward pass, as its authors do. New weights come from streams named after the remedy and
the step, so a continued run draws the same as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from harness.attribution.recorder import Recorder
from harness.config import ConfigError, RunSpec
from harness.config import schema as s
from harness.config.enums import Chosen
from harness.config.tree import choice
from harness.remedies import (
    RemedyEvent,
    TorchOptimizerState,
    UnitConnections,
    Wiring,
    shrink_perturb,
    wire,
)
from harness.remedies.auto import LOWER, Doing, choose, lowered, switch_decay_off, unit_acts
from harness.remedies.chooser import LOWER_RATE, NO_DECAY, Chooser
from harness.remedies.continual import Replacement
from harness.remedies.initializers import DrawRows
from harness.remedies.leaky import swap_silent
from harness.remedies.lifting import lift, liftable
from harness.remedies.recycle import recycle
from harness.remedies.surrogate import describe
from harness.training.initialisation import LinearMap, initialise, layers, redraw
from harness.training.models import build
from harness.training.randomness import stream

UNTREATED = "untreated"  # kind of the events that list sites on which a remedy cannot act


class Reach(NamedTuple):
    """Where a remedy can act.

    Attributes:
        connections: connections of the units of each site.
        refused: site → why the remedy cannot act there.
    """

    connections: tuple[UnitConnections, ...] = ()
    refused: Mapping[str, str] = {}


def reach(spec: RunSpec, model: nn.Module, shape: tuple[int, ...]) -> Reach:
    """Find out where the remedy of a run can act.

    Args:
        spec: the run.
        model: its network.
        shape: shape of one input.

    Raises:
        ConfigError: it cannot act anywhere.

    Example:
        >>> from harness.config import compose
        >>> spec = compose(["remedy=redo", "model.depth=2"])
        >>> [one.site for one in reach(spec, build(spec, (64,), 10), (64,)).connections]
        ['layers.0.act', 'layers.1.act']
    """
    first = next(model.parameters())
    sample = torch.zeros(2, *shape, dtype=first.dtype, device=first.device)
    if isinstance(spec.remedy, s.Redo | s.ContinualBackprop):
        found = renewable(model, wire(model, sample))
    elif isinstance(spec.remedy, s.BiasLift):
        found = Reach(*liftable(model, sample))
    elif isinstance(spec.remedy, s.Auto):
        found, other = Reach(*liftable(model, sample)), renewable(model, wire(model, sample))
        found = Reach((*found.connections, *other.connections), _neither(found.refused, other.refused))
    else:
        return Reach()
    if not found.connections:
        site, reason = next(iter(found.refused.items()))
        raise ConfigError(
            "remedy",
            f"{spec.remedy.name} finds no units in this network that it could act on ({site}: {reason})",
            hint="shrink_perturb works on every network, leaky_swap and sugar wherever ReLUs are.",
        )
    return found


def renewable(model: nn.Module, wiring: Wiring) -> Reach:
    """Find the sites whose units can be reinitialised: connections and initial distribution are known."""
    drawn = {name for name, _ in layers(model)}
    able = tuple(one for one in wiring.connections if one.name in drawn)
    others = {
        one.site: f"{type(one.layer).__name__} {one.name} cannot be drawn anew"
        for one in wiring.connections
        if one.name not in drawn
    }
    return Reach(able, {**wiring.refused, **others})


def _neither(one: Mapping[str, str], other: Mapping[str, str]) -> dict[str, str]:
    """Return the sites on which neither of two remedies can act, with both reasons."""
    return {
        site: reason if reason == other[site] else f"{reason}; {other[site]}"
        for site, reason in one.items()
        if site in other
    }


class Seen(NamedTuple):
    """What the census of this step shows.

    Attributes:
        share: share of the observed units that are dead.
        cause: runs the diagnosis, which is slow, and returns its label.
    """

    share: float
    cause: Callable[[], str]


class RemedyRunner:
    """The remedy of one run.

    Args:
        spec: the run; `remedy`, `init`, `bias` and `seed` are read.
        model: its network, on its device.
        optimizer: its optimizer.
        shape: shape of one input.
        classes: number of outputs.
        recorder: a recorder that gathers evidence, for `remedy=auto`.

    Raises:
        ConfigError: the remedy cannot act anywhere in this network.
    """

    def __init__(
        self,
        spec: RunSpec,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        shape: tuple[int, ...],
        classes: int,
        recorder: Recorder | None = None,
    ) -> None:
        self._spec, self._model, self._running = spec, model, TorchOptimizerState(optimizer)
        self._optimizer, self._recorder = optimizer, recorder
        self._reach = reach(spec, model, shape)
        remedy = spec.remedy
        self._chooser = Chooser(remedy.above, remedy.every) if isinstance(remedy, s.Auto) else None
        # the run's own initialisation may be the cause, so remedy=auto draws from a standard one
        law = spec if self._chooser is None else replace(spec, init=choice("init", "kaiming_normal"))
        self._draw = drawing(law, model)
        self._replacement: Replacement | None = None
        if isinstance(remedy, s.ContinualBackprop):
            numbers = remedy.rate, remedy.maturity, remedy.decay
            self._replacement = Replacement(self._reach.connections, self._running, *numbers)
        self._fresh = build(spec, shape, classes) if isinstance(remedy, s.ShrinkPerturb) else None
        self._shape, self._classes = shape, classes

    @property
    def rate(self) -> float:
        """Factor by which the scheduled learning rate is multiplied."""
        return 1.0 if self._chooser is None else LOWER**-self._chooser.lowered

    def begin(self) -> list[RemedyEvent]:
        """Return the events to report before the first step."""
        return beginning(self._spec, self._reach)

    def act(self, step: int, x: Tensor, seen: Seen | None = None) -> list[RemedyEvent]:
        """Act after a step, and return the events.

        Args:
            step: completed steps.
            x: the batch of that step.
            seen: what the census of that step shows; None if there was none.
        """
        remedy, model = self._spec.remedy, self._model
        if self._chooser is not None:
            return [] if seen is None else self._choose(self._chooser, step, x, seen)
        if self._replacement is not None:
            return self._replacement.replace_due(self._draw(step))
        if not due(remedy, step):
            return []
        with uncounted(model):
            match remedy:
                case s.Redo():
                    wiring = wire(model, x)
                    reached = {one.site for one in self._reach.connections}
                    connections = [one for one in wiring.connections if one.site in reached]
                    how = remedy.tau, self._draw(step), lots(self._spec, remedy, step)
                    return recycle(connections, wiring.magnitudes, self._running, *how)
                case s.BiasLift():
                    return lift(model, x, remedy.share, self._running, self._reach.connections)
                case s.LeakySwap():
                    slope, above = remedy.slope, remedy.above
                    return swap_silent(model, x, slope=slope, above=above, units=remedy.units.name)
        if isinstance(remedy, s.ShrinkPerturb) and self._fresh is not None:
            if isinstance(self._spec.model, s.CustomModel):  # its own code draws, so build it again
                draw = remedy.name, step
                self._fresh = build(self._spec, self._shape, self._classes, draw=draw)
            return perturb(self._spec, remedy, step, model, self._fresh)
        return []

    def state(self) -> dict[str, Any]:
        """State for a checkpoint: tensors and plain values."""
        if self._chooser is not None:
            return self._chooser.state_dict()
        return {} if self._replacement is None else self._replacement.state_dict()

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        if self._chooser is not None:
            self._chooser.load_state_dict(state)
        if self._replacement is not None:
            self._replacement.load_state_dict(state)

    def _choose(self, chooser: Chooser, step: int, x: Tensor, seen: Seen) -> list[RemedyEvent]:
        """Perform the acts that the diagnosis asks for."""
        assert self._recorder is not None
        model = self._model
        acts: dict[str, Doing] = {
            **unit_acts(
                model,
                x,
                self._running,
                self._draw(step),
                renewable=lambda wiring: renewable(model, wiring).connections,
            ),
            LOWER_RATE: partial(lowered, chooser),  # only reports it; `rate` lowers it
            NO_DECAY: partial(switch_decay_off, [self._optimizer]),
        }
        return choose(chooser, step, seen.share, seen.cause, acts, self._recorder.own_writes)


def beginning(spec: RunSpec, where: Reach) -> list[RemedyEvent]:
    """Events to report before the first step: a remedy active from the start, and untreated sites."""
    if isinstance(spec.remedy, s.Sugar):
        return [describe(spec.remedy.alpha)]
    return [RemedyEvent(UNTREATED, site, 0, reason) for site, reason in where.refused.items()]


def due(remedy: s.Remedy, step: int) -> bool:
    """Whether a periodic remedy acts after this step."""
    return step % getattr(remedy, "every", step + 1) == 0


def lots(spec: RunSpec, remedy: s.Redo, step: int) -> torch.Generator | None:
    """Return the stream that ReDo's placebo draws its units from after a step; None for ReDo itself."""
    return stream(spec.seed, "lots", step) if remedy.choose is Chosen.random else None


def drawing(spec: RunSpec, model: nn.Module) -> Callable[[int], DrawRows]:
    """Return a function that maps a step to the function that draws new weights after it."""
    places = {name: (index, maps[0]) for index, (name, maps) in enumerate(layers(model))}

    def at(step: int) -> DrawRows:
        def draw(name: str, weight: Tensor, units: Tensor) -> Tensor:
            index, layer = places[name]
            bias = None if layer.bias is None else layer.bias.detach().cpu()
            shapes = LinearMap(layer.weight.detach().cpu(), bias)
            return redraw(shapes, units.cpu(), spec, stream(spec.seed, spec.remedy.name, step, index))

        return draw

    return at


def perturb(
    spec: RunSpec, remedy: s.ShrinkPerturb, step: int, model: nn.Module, fresh: nn.Module
) -> list[RemedyEvent]:
    """Shrink a run's network and add a fraction of `fresh`, which is redrawn without sign flips."""
    name = "kaiming_normal" if spec.init.name == "sign_flip" else spec.init.name
    initialise(fresh, replace(spec, init=replace(spec.init, name=name)), draw=(remedy.name, step))
    return shrink_perturb(model, fresh, shrink=remedy.shrink, noise=remedy.noise)


@contextmanager
def uncounted(model: nn.Module) -> Iterator[None]:
    """Keep the run's recorder from counting forward passes in the block, which still run in training mode.

    The recorder checks only the root's `training` flag. The submodules, whose behaviour depends on the mode,
    keep theirs.
    """
    model.training = False
    try:
        yield
    finally:
        model.training = True
