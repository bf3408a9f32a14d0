"""The remedies of a stack: what `harness.training.cures` does to a run, done to each member of its own.

Scores and silence come from one more forward pass of the whole stack; the surgery is that of single networks,
on views of the members. Utilities of continual backprop are kept for all members at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from harness.config import RunSpec
from harness.config import schema as s
from harness.hooks.sites import Site
from harness.remedies import Act, Junction
from harness.remedies.continual import replace
from harness.remedies.laws import Draw
from harness.remedies.leaky import crowded, swap, to_swap
from harness.remedies.lifting import around, lacking, raised
from harness.remedies.recycle import recycle
from harness.remedies.utility import Utilities
from harness.training.cures import Reach, beginning, drawing, due, perturb, reach
from harness.training.models import build
from harness.training.stacked.network import StackedMLP
from harness.training.stacked.parameters import Parameter
from harness.training.stacked.views import MemberView

LOOKING = (s.Redo, s.BiasLift, s.LeakySwap)  # what needs another forward pass
Told = tuple[int, Act]  # place in the stack, and what was done there


class StackCures:
    """The remedies of all members, in the order of the stack.

    Args:
        specs: of the members.
        network: the stack.
        parameters: of the stack, with their moments.
        buffers: of the stack.
        sites: of every member.
        shape: of one input.
        classes: outputs.

    Raises:
        ConfigError: a remedy can act nowhere in such a network.
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
            junctions = tuple(junction.of(view.model) for junction in first[kind].junctions)
            self._reach[place] = first[kind]._replace(junctions=junctions)
        self._draws: dict[int, Callable[[int], Draw]] = {
            place: drawing(specs[place], view.model) for place, view in self._views.items()
        }
        self._fresh = {place: build(specs[place], shape, classes) for place in self._of(s.ShrinkPerturb)}
        self._continual = self._of(s.ContinualBackprop)
        self._utilities = [Utilities(len(self._continual), 1, junction.size) for junction in self._junctions]
        self._given: list[tuple[Tensor, Tensor]] = []  # mean |h| and mean h (K, F) of every site

    # --- what is kept -------------------------------------------------------------------------------

    def begin(self) -> list[Told]:
        """What is told before the first step."""
        return [
            (place, act)
            for place, spec in enumerate(self._specs)
            for act in beginning(spec, self._reach.get(place, Reach()))
        ]

    def state(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {"members": self._continual, "utilities": [u.state() for u in self._utilities]}

    def load(self, state: Mapping[str, Any], places: Sequence[int] | None = None) -> None:
        """Continue what `state` returned, or the members at some places of it."""
        rows = None
        if places is not None:
            rows = [row for row, place in enumerate(state["members"]) if place in set(places)]
        for utilities, kept in zip(self._utilities, state["utilities"], strict=True):
            utilities.load(kept, rows)

    def inherit(self, other: StackCures, places: Sequence[int]) -> None:
        """Go on with the members at some places of another stack, in the middle of a step."""
        if self._continual:
            self.load(other.state(), places)
            rows = torch.tensor(places)
            self._given = [(size[rows], mean[rows]) for size, mean in other._given]

    # --- in a step ----------------------------------------------------------------------------------

    def watch(self) -> None:
        """The training pass of a step has been made: remember what its activations gave on average."""
        if self._continual:
            outputs = [block.act.output for block in self._network.blocks]
            kind = torch.float64
            self._given = [(a.abs().mean(1, dtype=kind), a.mean(1, dtype=kind)) for a in outputs]

    def act(self, step: int, x: Tensor) -> list[Told]:
        """What is done after a step.

        Args:
            step: completed steps.
            x: (K, B, F), the batch of that step.
        """
        for view in self._views.values():
            view.step = step
        told = self._replace(step)
        acting = {place for place, spec in enumerate(self._specs) if due(spec.remedy, step)}
        looking = [place for place in acting if isinstance(self._specs[place].remedy, LOOKING)]
        if looking:
            told += self._look(step, x, acting)
        for place in sorted(acting & set(self._fresh)):
            spec: Any = self._specs[place]
            acts = perturb(spec, spec.remedy, step, self._views[place].model, self._fresh[place])
            told += [(place, act) for act in acts]
        return told

    # --- inside -------------------------------------------------------------------------------------

    def _of(self, kind: type[s.Remedy]) -> list[int]:
        return [place for place, spec in enumerate(self._specs) if isinstance(spec.remedy, kind)]

    @property
    def _junctions(self) -> tuple[Junction, ...]:
        """Of the first member with continual backprop; all are alike."""
        return self._reach[self._continual[0]].junctions if self._continual else ()

    def _replace(self, step: int) -> list[Told]:
        """Continual backprop."""
        if not self._continual:
            return []
        remedies: list[Any] = [self._specs[place].remedy for place in self._continual]
        rate, maturity, decay = (
            torch.tensor([getattr(remedy, name) for remedy in remedies], dtype=torch.float64)
            for name in ("rate", "maturity", "decay")
        )
        members, chosen = torch.tensor(self._continual), []
        for number, (junction, utilities) in enumerate(zip(self._junctions, self._utilities, strict=True)):
            size, mean = self._given[number]
            weight = self._parameters[f"{junction.names[2][0]}.weight"].value
            outgoing = weight.abs().sum(1, dtype=torch.float64)
            utilities.update((size * outgoing)[members], mean[members].unsqueeze(1), decay)
            chosen.append(utilities.choose(rate, maturity, decay))
        told = []
        for row, place in enumerate(self._continual):
            view, draw, eta = self._views[place], self._draws[place](step), float(decay[row])
            for number, junction in enumerate(self._reach[place].junctions):
                units = chosen[number][row]
                if len(units):
                    utilities = self._utilities[number]
                    told.append((place, replace(junction, utilities, row, units, view, draw, eta)))
        return told

    def _look(self, step: int, x: Tensor, acting: set[int]) -> list[Told]:
        """One more training pass: lifts on the way, recycling and swaps afterwards."""
        told: list[Told] = []
        lifting = sorted(acting & set(self._of(s.BiasLift)))
        swapping = sorted(acting & set(self._of(s.LeakySwap)))
        peaks: list[Tensor] = []

        def seen(number: int, z: Tensor) -> None:
            for place in lifting:
                told.extend((place, act) for act in self._lift(place, number, z[place]))
            if swapping:
                peaks.append(z.amax(1))

        kept = {name: buffer.clone() for name, buffer in self._buffers.items()}
        self._network.forward(x, seen)
        for name, buffer in self._buffers.items():
            buffer.copy_(kept[name])
        outputs = [block.act.output for block in self._network.blocks]
        for place in sorted(acting & set(self._of(s.Redo))):
            remedy: Any = self._specs[place].remedy
            where, view = self._reach[place].junctions, self._views[place]
            sums = {
                junction.site: a[place].abs().sum(0, dtype=torch.float64)
                for junction, a in zip(where, outputs, strict=True)
            }
            acts = recycle(where, sums, view, remedy.tau, self._draws[place](step))
            told += [(place, act) for act in acts]
        for place in swapping:
            told += [(place, act) for act in self._swap(place, [peak[place] for peak in peaks])]
        return told

    def _lift(self, place: int, number: int, z: Tensor) -> list[Act]:
        """Lift one member's silent units at one site, in its biases and in z (B, F)."""
        remedy: Any = self._specs[place].remedy
        site = self._sites[number].name
        makers, view = self._reach[place].liftable.get(site), self._views[place]
        lifts = lacking(z, remedy.share)
        if makers is None or not lifts.any():
            return []
        z.add_(lifts)
        return [raised(site, around(view.model, makers), lifts, remedy.share, view)]

    def _swap(self, place: int, peaks: list[Tensor]) -> list[Act]:
        """Make one member's silent units leaky."""
        remedy: Any = self._specs[place].remedy
        own = [self._slopes(site, place) for site in self._sites]
        if not crowded(peaks, own, remedy.above):
            return []
        whole = remedy.units is s.Swapped.all
        chosen = [to_swap(peak, slope, all_of_them=whole) for peak, slope in zip(peaks, own, strict=True)]
        return [
            swap(site.name, slope, units, remedy.slope)
            for site, slope, units in zip(self._sites, own, chosen, strict=True)
            if units.any()
        ]

    def _slopes(self, site: Site, place: int) -> Tensor:
        p = self._parameters[f"{site.name}.slope"]
        return p.value[p.row(place)]
