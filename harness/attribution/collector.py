"""The collector: gathers the evidence of a training run and evaluates it at the end.

Gathering is cheap: fourteen scalars per step (`step_metrics`), and copies of parameters and inputs
(`snapshots`). The evaluation (`initial_state`, `counterfactual`) happens once per report. It gives three
tables from which `harness.attribution.causes` finds the causes without the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import pandas as pd
from torch import nn
from torch.optim import Optimizer

from harness.activations.declared import declared_names
from harness.attribution.alternatives import ALTERNATIVES
from harness.attribution.budget import FEWEST, SOME, Budget, first_of
from harness.attribution.counterfactual import CoalitionEvaluator
from harness.attribution.entrances import Entrances
from harness.attribution.evidence import Evidence
from harness.attribution.evidence_tables import layer_table, unit_table
from harness.attribution.initial_state import InitialState, own_rows, weight_statistics
from harness.attribution.layer_inputs import layer_inputs
from harness.attribution.layers import behind, layers_of
from harness.attribution.loss_path import LossPath
from harness.attribution.model_inputs import input_count
from harness.attribution.outputs_again import outputs_again
from harness.attribution.own_parameters import OwnParameters, own_parameters
from harness.attribution.replay import Replay
from harness.attribution.site_replay import BIRTH as SITE_BIRTH
from harness.attribution.site_replay import SiteReplay
from harness.attribution.snapshots import Snapshot, Snapshots
from harness.attribution.starvation import starvation
from harness.attribution.step_metrics import StepMetrics, parameters
from harness.attribution.uncleared_gradients import UnclearedGradients
from harness.attribution.untrained import UntrainedState
from harness.attribution.whole_passes import OwnPasses
from harness.graph.plan import Site, plain_name, without_wrappers
from harness.hooks.eager import EagerTaps
from harness.hooks.unobservable import error_line
from harness.progress import Progress
from harness.recording.listener import Guard

PASSES = 12  # approximate number of forward passes over the inputs, without the shares
MIXED = 40  # additional passes for the shares, if every layer has dead units
OWN_BIRTH = 7  # additional passes for births at each site whose layer is not a module


class EvidenceCollector:
    """Gathers the evidence of one model's training, as a listener of its recorder.

    Args:
        model: the model.
        optimizers: the optimizers that step it.
        taps: the taps that observe it; they know the gates.
        options: options of the taps.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[Optimizer],
        taps: EagerTaps,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._model, self._taps, self._options = without_wrappers(model)[1], taps, options
        self._metrics = StepMetrics(self._model, optimizers)
        self._snapshots = Snapshots(self._model)
        self._untrained, self._optimizers = UntrainedState(self._model), optimizers
        self._loss, self._uncleared = LossPath(self._model, optimizers), UnclearedGradients(optimizers)
        self._entrances = Entrances(
            self._model,
            on_inputs=self._metrics.read_inputs,
            on_output=self._loss.read_output,
            on_forward=self._snapshots.add_parts,
            on_enter=self._metrics.forget_inputs,
            on_root=self._snapshots.follow_root,
            on_idle=self._snapshots.follow_parts,
        )
        self._guard: Guard | None = None  # while attached
        self._biases: set[str] = set()  # of layers that are not modules
        self._failed: list[str] = []  # what could not be evaluated
        self._declared: set[str] = set()  # declared activations that were counted
        self._steps = self._resumed = 0

    def attach(self, guard: Guard) -> None:
        """Start gathering."""
        self._guard = guard
        self._declared |= declared_names()
        self._entrances.attach(guard)
        self._metrics.attach(guard)
        self._snapshots.attach(guard)
        self._loss.attach()
        self._uncleared.attach()
        if not self._steps:
            self._snapshot()

    def detach(self) -> None:
        """Remove every hook."""
        self._guard = None
        for part in (self._entrances, self._metrics, self._snapshots, self._loss, self._uncleared):
            part.detach()

    def step(self, loss: Any) -> None:
        """Record a completed optimizer step; the first ones may be all there is before a divergence."""
        self._entrances.step()
        self._snapshots.step()
        self._metrics.step(loss)
        self._loss.step(loss)
        self._uncleared.step()
        self._steps += 1
        if self._steps & (self._steps - 1) == 0:
            self._snapshot()

    def census(self) -> None:
        """Record the end of a window."""
        self._snapshot()

    def state_dict(self) -> dict[str, Any]:
        """State that consists of tensors and plain values."""
        return {
            "steps": self._steps,
            "vitals": self._metrics.state_dict(),
            "kept": self._snapshots.state_dict(),
            "loss": self._loss.state_dict(),
            "untrained": self._untrained.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""
        self._steps = self._resumed = int(state["steps"])
        self._metrics.load_state_dict(state["vitals"])
        self._snapshots.load_state_dict(state["kept"])
        if "loss" in state:  # not in states of earlier versions
            self._loss.load_state_dict(state["loss"])
        if "untrained" in state:
            self._untrained.load_state_dict(state["untrained"])

    def evidence(
        self, sites: Sequence[Site], census: pd.DataFrame | None, error: str = "", *, replay: bool = True
    ) -> Evidence:
        """Evaluate the gathered data, in passes that are not part of the training.

        Args:
            sites: the observed sites.
            census: the last one with an input. Shares, the costly part, are computed for its sites with dead
                units, or for all sites if values were not finite.
            error: why this collector was switched off, if it was.
            replay: whether to run the network again; otherwise only the step table is filled.
        """
        self._failed.clear()
        with self.outside_training():
            steps, obstacle = self._metrics.frame(), self._obstacle()
            units, layers = unit_table(), layer_table([])
            self._note_undeclared(sites)
            if replay and not obstacle:
                again = self._replay()
                found = self._attempt((units, layers, 0), self._replayed, again, sites, census)
                units, layers, count = found
                steps.attrs["replayed"] = count
                facts = self._attempt({}, self._loss.facts, again, self._snapshots.start, self._biases)
                sizes = steps["output_rms"].to_numpy(float)
                steps.attrs["loss"] = facts | self._attempt({}, outputs_again, again, self._snapshots, sizes)
            steps.attrs |= {"untrained": self._untrained.changes, "resumed": self._resumed}
            climbs = any(group.get("maximize") for one in self._optimizers for group in one.param_groups)
            steps.attrs |= {
                "given": self._metrics.given,
                "uncleared": self._uncleared.found,
                "maximize": climbs,
            }
            obstacle = "; ".join(filter(None, [obstacle, *self._failed]))
        if error:
            obstacle = f"it was switched off after step {len(steps):,} ({error})"
        steps.attrs["error"] = obstacle
        return Evidence(steps, units, layers)

    def own_parameters(self, site: str) -> OwnParameters | None:
        """The parameters of one site's units; None if unknown."""
        if self._obstacle():
            return None
        with self.outside_training():
            found = self._attempt({}, own_parameters, self._replay(), self._snapshots.last(), [site])
        return found.get(site)

    @contextmanager
    def outside_training(self) -> Iterator[None]:
        """Context manager: passes and writes in the block do not become evidence."""
        guard = self._guard
        self.detach()
        try:
            with self._taps.paused():
                yield
        finally:
            if guard is not None and not guard.error:
                self.attach(guard)

    # --- inside -------------------------------------------------------------------------------------

    def _snapshot(self) -> None:
        """Copy the parameters, and compare what is not trained with the copy before."""
        before = self._snapshots.latest or self._snapshots.start
        self._snapshots.census()
        trained = {id(p) for optimizer in self._optimizers for p in parameters(optimizer)}
        latest, modes = self._snapshots.latest, self._snapshots.modes  # the one before if now not finite
        self._untrained.read(self._steps, before, latest or before, trained, modes)

    def _obstacle(self) -> str:
        """Why the initial network cannot be run again, "" if it can."""
        broken = self._entrances.broken
        if self._snapshots.by_parts and broken:
            return (
                f"only parts of the model are called, and {broken} is handed what was made outside of any "
                "part, of parameters or of another part's output, so that the network of the start cannot be "
                "run again; give the model a forward() that makes all of it, and call the model"
            )
        return self._snapshots.prepare_replay()

    def _replay(self) -> Replay:
        replay = Replay(self._model, self._modes(), self._options, by_parts=self._snapshots.by_parts)
        replay.prepare(self._snapshots.first())
        return replay

    def _replayed(
        self, replay: Replay, sites: Sequence[Site], census: pd.DataFrame | None
    ) -> tuple[pd.DataFrame, pd.DataFrame, int]:
        """The tables of units and layers, and the number of inputs used if they were truncated, else 0."""
        with_deaths = _sites_with_deaths(census)
        progress = Progress("diagnose", 9, "passes")
        first, last = self._snapshots.first(), self._snapshots.last()
        layers, makers = layers_of(replay, sites, self._taps.book.gates, first)
        handed = InitialState(replay, Snapshot(first.values, first.inputs[:1]), layers)
        seen = set(handed.units()["site"])
        changed = {s for s in with_deaths if s in seen and not handed.is_handed(s)}  # behind their layer
        bare = [
            site.name
            for site in sites
            if (site.name in changed or site.name not in seen) and self._may_be_bare(site)
        ]
        found = self._attempt({}, own_parameters, replay, first, bare, behind(first)) if bare else {}
        odd = [s for s in with_deaths if s in makers and s not in found and not handed.is_handed(s)]
        made = {s: tuple(chain(*chains)) for s, chains in makers.items()}
        made |= {s: tuple(own.axes) for s, own in found.items()}
        alone = {*odd, *found, *(s for s, layer in layers.items() if layer.gate is None)}
        wanted = {s: layer for s, layer in layers.items() if s in with_deaths and s not in alone}
        budget = Budget(replay, first)
        self._biases = {name for own in found.values() for name in own.biases}
        single = SiteReplay(replay, first, last, self._decayed(), self._biases)
        costs = {s: single.passes(made[s]) for s in with_deaths if s in alone}
        asked = list(costs)[: budget.most_sites(list(costs.values()), SOME)]
        born = odd[: max(1, budget.most_sites([SITE_BIRTH] * len(odd), FEWEST))]
        passes = PASSES + MIXED * len(wanted) / max(1, len(layers))
        watched = sum(costs[s] for s in asked) + SITE_BIRTH * len(born) + OWN_BIRTH * len(found)
        share = budget.share(first, passes, watched)
        first = first._replace(inputs=first_of(first.inputs, share))
        last = last._replace(inputs=first_of(last.inputs[::-1], share)[::-1])
        progress.step()
        evaluator = CoalitionEvaluator(replay, first, last, self._decayed())
        rates = evaluator.rates(wanted, progress.step) if with_deaths else {}
        rates = {s: rate for s, rate in rates.items() if s in with_deaths and s not in alone}
        single = SiteReplay(replay, first, last, self._decayed(), self._biases)
        for site in [*asked, *(s for s in wanted if s not in rates and s in makers)]:
            rates |= {site: rate} if (rate := single.rates(site, made[site])) else {}
        own = OwnPasses(replay, first, found)
        births = InitialState(replay, first, layers).units()
        births = births[~births["site"].isin([*odd, *found])]
        others = [single.birth(site, made[site]) for site in born]
        others += [own.births()] if found else []
        births = pd.concat([births, *others], ignore_index=True)
        sizes = {site.name: site.size for site in sites}
        chains = {site: (layer.names,) for site, layer in layers.items() if site not in found}
        chains |= {site: makers[site] for site in odd if site not in layers}
        start = self._snapshots.start
        biased = {site for site, layer in layers.items() if replay.normed(layer) != "offset and scale"}
        rows_of = [*own_rows(chains, sizes, replay.modules, start, biased), *own.rows()]
        progress.step()
        asked_of = ALTERNATIVES if with_deaths else {}
        others = {name: self._attempt({}, ask, replay, first, last) for name, ask in asked_of.items()}
        progress.step()
        starved = None
        if census is not None:
            stream = census[census["evidence"] == "stream"]
            starved = self._attempt(None, starvation, replay, last, stream)
        units = unit_table(births, rates, rows_of, others, starved)
        progress.step()
        inputs, inputs_now = layer_inputs(replay, first, layers), layer_inputs(replay, last, layers)
        own_layers = own.layers(last)
        progress.close()
        rows = []
        for depth, site in enumerate(sites):
            row: dict[str, Any] = {"site": site.name, "depth": depth, "units": site.size}
            if site.name in layers:
                layer = layers[site.name]
                name, latest = layer.names[0], self._snapshots.latest
                row |= {"layer": plain_name(name, self._model), "source": layer.source}
                row["normed"] = replay.normed(layer)
                row |= weight_statistics(name, replay.modules[name], start, latest)
            if site.name in made:
                row["trained"] = any(map(replay.is_trained, made[site.name]))
            row |= inputs.get(site.name, {})
            row |= {f"{name}_now": value for name, value in inputs_now.get(site.name, {}).items()}
            rows.append(row | own_layers.get(site.name, {}))
        cut = sum(map(input_count, last.inputs)) if share < 1.0 else 0
        return units, layer_table(rows), cut

    def _note_undeclared(self, sites: Sequence[Site]) -> None:
        """Record which activations the passes cannot see, since their declarations were removed."""
        used = {site.activation for site in sites}
        for name in sorted(used & (self._declared - declared_names())):
            self._failed.append(
                f"{name} is no longer declared as an activation, so that its units are not seen when the "
                "model is run again; declare it again before diagnose()"
            )

    def _attempt(self, default: Any, function: Callable[..., Any], *args: Any) -> Any:
        """The result of a function; if it fails, the default, so that the rest of the evidence remains."""
        try:
            return function(*args)
        except Exception as error:
            what = function.__name__.strip("_")
            self._failed.append(f"{what} could not be computed ({error_line(error)})")
            return default

    def _may_be_bare(self, site: Site) -> bool:
        """Whether single parameters may make a site: one that a single layer makes, or code without one."""
        modules = {plain_name(name, self._model) for name, _ in self._model.named_modules()}
        return site.exact or (bool(site.producers) and modules.isdisjoint(site.producers))

    def _decayed(self) -> dict[str, Any]:
        decayed = self._metrics.decayed
        return {name: decayed[id(p)] for name, p in self._model.named_parameters() if id(p) in decayed}

    def _modes(self) -> dict[str, bool]:
        return {
            name: self._snapshots.modes.get(plain_name(name, self._model), module.training)
            for name, module in self._model.named_modules()
        }


def _sites_with_deaths(census: pd.DataFrame | None) -> list[str]:
    """The sites where a census has dead units, most first; all sites if it has non-finite values."""
    if census is None:
        return []
    dead = census.loc[census["state"].eq("dead"), "site"].value_counts().index.tolist()
    broken = census["state"].eq("non_finite").any()
    return list(dict.fromkeys([*dead, *census["site"]])) if broken else dead
