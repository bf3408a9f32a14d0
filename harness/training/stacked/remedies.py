"""The remedies of a stack: each member's own remedy, as `remedy_runner` applies it to a single run.

Scores and silent units come from one extra forward pass of the whole stack. The surgery functions for single
networks act on views of the members. Utilities of continual backprop are updated for all members at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from harness.config import RunSpec
from harness.config import schema as s
from harness.config.enums import Swapped
from harness.graph.plan import Site
from harness.remedies import RemedyEvent, UnitConnections
from harness.remedies.continual import replace
from harness.remedies.initializers import DrawRows
from harness.remedies.leaky import exceeds, swap, to_swap
from harness.remedies.lifting import bias_size, lifts_for, raise_biases, rates_after
from harness.remedies.recycle import recycle
from harness.remedies.utility import Utilities
from harness.training.models import build
from harness.training.remedy_runner import Reach, beginning, drawing, due, lots, perturb, reach
from harness.training.stacked.network import StackedMLP
from harness.training.stacked.parameters import Parameter
from harness.training.stacked.views import MemberView

LOOKING = (s.Redo, s.BiasLift, s.LeakySwap)  # remedies that need an extra forward pass
PlacedEvent = tuple[int, RemedyEvent]  # place in the stack, event


class StackRemedyRunner:
    """The remedies of all members, in the order of the stack.

    Args:
        specs: the members.
        network: network of the stack.
        parameters: parameters of the stack, with their moments.
        buffers: buffers of the stack.
        sites: sites of every member.
        shape: shape of one input.
        classes: number of outputs.

    Raises:
        ConfigError: a remedy cannot act anywhere in such a network.
    """

    def __init__(
        self,
        specs: Sequence[RunSpec],
        network: StackedMLP,
        parameters: Sequence[Parameter],
        buffers: Mapping[str, Tensor],
        sites: Sequence[Site],
        shape: tuple[int, ...],
        classes: int,
    ) -> None:
        self._specs, self._network, self._buffers, self._sites = specs, network, buffers, sites
        self._parameters = {p.name: p for p in parameters}
        viewed = s.Redo | s.ContinualBackprop | s.ShrinkPerturb | s.BiasLift
        self._views = {
            place: MemberView(spec, place, parameters, buffers, shape, classes)
            for place, spec in enumerate(specs)
            if isinstance(spec.remedy, viewed)
        }
        self._reach: dict[int, Reach] = {}
        first: dict[str, Reach] = {}
        for place, view in self._views.items():
            kind = specs[place].remedy.name
            if kind not in first:
                first[kind] = reach(specs[place], view.model, shape)
            connections = tuple(one.of(view.model) for one in first[kind].connections)
            self._reach[place] = first[kind]._replace(connections=connections)
        self._draws: dict[int, Callable[[int], DrawRows]] = {
            place: drawing(specs[place], view.model) for place, view in self._views.items()
        }
        self._fresh = {place: build(specs[place], shape, classes) for place in self._of(s.ShrinkPerturb)}
        self._continual = self._of(s.ContinualBackprop)
        self._utilities = [Utilities(len(self._continual), 1, one.size) for one in self._connections]
        self._given: list[tuple[Tensor, Tensor]] = []  # mean |h| and mean h (K, F) of every site

    # --- state --------------------------------------------------------------------------------------

    def begin(self) -> list[PlacedEvent]:
        """Return the events to report before the first step."""
        return [
            (place, event)
            for place, spec in enumerate(self._specs)
            for event in beginning(spec, self._reach.get(place, Reach()))
        ]

    def state(self) -> dict[str, Any]:
        """State as tensors and plain values."""
        return {"members": self._continual, "utilities": [u.state() for u in self._utilities]}

    def load(self, state: Mapping[str, Any], places: Sequence[int] | None = None) -> None:
        """Restore what `state` returned, or the members at some places of it."""
        rows = None
        if places is not None:
            rows = [row for row, place in enumerate(state["members"]) if place in set(places)]
        for utilities, saved in zip(self._utilities, state["utilities"], strict=True):
            utilities.load(saved, rows)

    def inherit(self, other: StackRemedyRunner, places: Sequence[int]) -> None:
        """Take over the state of the members at some places of another stack, in the middle of a step."""
        if self._continual:
            self.load(other.state(), places)
            rows = torch.tensor(places)
            self._given = [(size[rows], mean[rows]) for size, mean in other._given]

    # --- in a step ----------------------------------------------------------------------------------

    def watch(self) -> None:
        """After a step's training pass, store the mean activations for continual backprop."""
        if self._continual:
            outputs = [block.act.output for block in self._network.blocks]
            kind = torch.float64
            self._given = [(a.abs().mean(1, dtype=kind), a.mean(1, dtype=kind)) for a in outputs]

    def act(self, step: int, x: Tensor) -> list[PlacedEvent]:
        """Act after a step, and return the events.

        Args:
            step: completed steps.
            x: (K, B, F), the batch of that step.
        """
        for view in self._views.values():
            view.step = step
        events = self._replace(step)
        acting = {place for place, spec in enumerate(self._specs) if due(spec.remedy, step)}
        looking = [place for place in acting if isinstance(self._specs[place].remedy, LOOKING)]
        if looking:
            events += self._look(step, x, acting)
        for place in sorted(acting & set(self._fresh)):
            spec: Any = self._specs[place]
            own = perturb(spec, spec.remedy, step, self._views[place].model, self._fresh[place])
            events += [(place, event) for event in own]
        return events

    # --- inside -------------------------------------------------------------------------------------

    def _of(self, kind: type[s.Remedy]) -> list[int]:
        return [place for place, spec in enumerate(self._specs) if isinstance(spec.remedy, kind)]

    @property
    def _connections(self) -> tuple[UnitConnections, ...]:
        """Connections of the first member with continual backprop; those of the others are the same."""
        return self._reach[self._continual[0]].connections if self._continual else ()

    def _replace(self, step: int) -> list[PlacedEvent]:
        """Replace units by continual backprop."""
        if not self._continual:
            return []
        remedies: list[Any] = [self._specs[place].remedy for place in self._continual]
        rate, maturity, decay = (
            torch.tensor([getattr(remedy, name) for remedy in remedies], dtype=torch.float64)
            for name in ("rate", "maturity", "decay")
        )
        members, chosen = torch.tensor(self._continual), []
        for number, (one, utilities) in enumerate(zip(self._connections, self._utilities, strict=True)):
            size, mean = self._given[number]
            weight = self._parameters[f"{one.consumers[0].name}.weight"].value
            outgoing = weight.abs().sum(1, dtype=torch.float64)
            utilities.update((size * outgoing)[members].cpu(), mean[members].unsqueeze(1).cpu(), decay)
            chosen.append(utilities.choose(rate, maturity, decay))
        events = []
        for row, place in enumerate(self._continual):
            view, draw, eta = self._views[place], self._draws[place](step), float(decay[row])
            for number, one in enumerate(self._reach[place].connections):
                units = chosen[number][row]
                if len(units):
                    utilities = self._utilities[number]
                    events.append((place, replace(one, utilities, row, units, view, draw, eta)))
        return events

    def _look(self, step: int, x: Tensor, acting: set[int]) -> list[PlacedEvent]:
        """Run an extra training pass: lift biases during it, recycle and swap units afterwards."""
        events: list[PlacedEvent] = []
        lifting = sorted(acting & set(self._of(s.BiasLift)))
        swapping = sorted(acting & set(self._of(s.LeakySwap)))
        peaks: list[Tensor] = []

        def seen(number: int, z: Tensor) -> None:
            for place in lifting:
                events.extend((place, event) for event in self._lift(place, number, z[place]))
            if swapping:
                peaks.append(z.amax(1))

        before = {name: buffer.clone() for name, buffer in self._buffers.items()}
        self._network.forward(x, seen)
        for name, buffer in self._buffers.items():
            buffer.copy_(before[name])
        outputs = [block.act.output for block in self._network.blocks]
        for place in sorted(acting & set(self._of(s.Redo))):
            remedy: Any = self._specs[place].remedy
            where, view = self._reach[place].connections, self._views[place]
            sums = {
                one.site: a[place].abs().sum(0, dtype=torch.float64)
                for one, a in zip(where, outputs, strict=True)
            }
            how = remedy.tau, self._draws[place](step), lots(self._specs[place], remedy, step)
            own = recycle(where, sums, view, *how)
            events += [(place, event) for event in own]
        for place in swapping:
            events += [(place, event) for event in self._swap(place, [peak[place] for peak in peaks])]
        return events

    def _lift(self, place: int, number: int, z: Tensor) -> list[RemedyEvent]:
        """Lift one member's silent units at one site, both in its biases and in z (B, F)."""
        remedy: Any = self._specs[place].remedy
        site = self._sites[number].name
        connections = next((one for one in self._reach[place].connections if one.site == site), None)
        if connections is None:
            return []
        lifts = lifts_for(z, remedy.share, bias_size(connections))
        if not lifts.any():
            return []
        rates = rates_after(z, lifts)
        z.add_(lifts)
        return [raise_biases(connections, lifts, rates, self._views[place])]

    def _swap(self, place: int, peaks: list[Tensor]) -> list[RemedyEvent]:
        """Make one member's silent units leaky."""
        remedy: Any = self._specs[place].remedy
        own = [self._slopes(site, place) for site in self._sites]
        if not exceeds(peaks, own, remedy.above):
            return []
        whole = remedy.units is Swapped.all
        chosen = [to_swap(peak, slope, all_of_them=whole) for peak, slope in zip(peaks, own, strict=True)]
        return [
            swap(site.name, slope, units, remedy.slope)
            for site, slope, units in zip(self._sites, own, chosen, strict=True)
            if units.any()
        ]

    def _slopes(self, site: Site, place: int) -> Tensor:
        p = self._parameters[f"{site.name}.slope"]
        return p.value[p.row(place)]
