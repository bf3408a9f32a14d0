"""Causes: why the units of a run are dead, from its censuses and its evidence, without the model.

The rules and their order were derived from injected faults (`experiments.benchmarks.causes`). They are
proposals: one run cannot distinguish some causes (`python -m experiments.benchmarks.causes` shows which).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import pandas as pd

from harness.attribution.baseline import known_median
from harness.attribution.birth_causes import are_mostly_flat, birth_causes, hardly_vary, is_by_chance, normed
from harness.attribution.dead_units import (
    HARDLY,
    are_outputs,
    do_inputs_differ,
    factor_shares,
    informative,
    is_on_stream_alone,
    is_only_evaluated,
    mostly_dead,
    opens_with_first_buffers,
    runs_otherwise,
)
from harness.attribution.event import DRIFT, INPUTS, OUTSIDE, UNTRAINED, Event
from harness.attribution.evidence import Evidence
from harness.attribution.findings import LEAST_DEAD, Findings
from harness.attribution.killing_events import is_falling, killing_events
from harness.attribution.lasting_causes import (
    DOWNWARD,
    ORDERED,
    are_behind,
    has_far_targets,
    is_mostly_penalty,
    large_from_start,
    lasting_cause,
    mean,
    odd_steps,
    order_of_inputs,
)
from harness.attribution.loss_rises import FAR, SETTLED
from harness.attribution.step_series import UNBOUNDED

SEVERAL = 0.2  # share of the units born dead from which those decide that are not by chance
CHANCE = 0.2  # dead share below which units born dead by chance need no cause
MOSTLY = 0.8  # if no unit was born dead, share of units nearly born dead that is enough
DRIFTED = 0.25  # share of the inputs in the units' fall from which their slow drift is blamed
MOST_BELOW = 0.75  # the same for layers below, from which a buffer is blamed that changes on and on
SOME_DATA = 0.15  # the same if held-out inputs still open most of the units
BELOW_HE = 0.7  # deviation of the weights over He's, below which signals shrink from layer to layer
SYMPTOMS = ("loss", "grad_norm", "update_norm")  # columns of events that may follow from others
OTHERWISE = 0.25  # share of the open units that the first network, run again, must close: its forward changed


class Cause(NamedTuple):
    """The cause of a run.

    Attributes:
        label: one of `LABELS`.
        events: the dated events behind it (none for what was present from the start).
        sites: the sites it applies to, if not to the run as a whole: those that are mostly dead.
        chance: whether it closed units although their weights and biases are not unusual.
    """

    label: str
    events: list[Event] = []  # noqa: RUF012
    sites: tuple[str, ...] = ()
    chance: bool = False


def cause_of(found: Findings, evidence: Evidence) -> Cause:
    """The cause of a run; if it has none as a whole, that of the layers that are mostly dead."""
    units = informative(found.units)
    dead = units[units["dead"]]
    lost = len(dead) + (found.cut_off if len(dead) else 0)
    cause = _cause(Case(dead, lost / max(1, len(units)), found, evidence))
    sites = mostly_dead(units, evidence.layers)
    if cause.label != "none" or not sites:
        return cause
    units = units[units["site"].isin(sites)]
    dead = units[units["dead"]]
    return _cause(Case(dead, len(dead) / len(units), found, evidence))._replace(sites=sites)


def explained_by(cause: Cause, event: Event, found: Findings) -> Event:
    """An event, relabelled if the run's cause explains it.

    If a loss rises before most of the deaths, and something other than the labels explains these, the rise
    does not indicate changed labels.
    """
    other = cause.label not in ("labels", "none", "unknown") and not cause.sites
    if event.label != "labels" or not other or 2 * len(found.deaths_from(event)) < max(1, len(found.deaths)):
        return event
    return event._replace(label=cause.label, text=f"{event.text}; it is put down to the cause of the run")


@dataclass(frozen=True)
class Case:
    """Some dead units of a run, and what the rules ask about them.

    Attributes:
        dead: their rows.
        share: their share among the units considered.
        found: the findings of the run.
        evidence: the tables.
    """

    dead: pd.DataFrame
    share: float
    found: Findings
    evidence: Evidence

    @property
    def diverged(self) -> bool:
        """Whether the training diverged."""
        return self.found.diverged_at is not None

    @cached_property
    def born(self) -> pd.DataFrame:
        """Those that were born dead, or nearly; a forward that has changed since does not show the start."""
        dead = self.dead
        return dead[dead["born"] | ((dead["rate_then"] < HARDLY) & ~dead["rate_first"].ge(HARDLY))]

    @cached_property
    def own_shares(self) -> pd.DataFrame:
        """`factor_shares` without what changed below, which is another layer's own share."""
        return factor_shares(self.dead.assign(upstream=0.0))

    @cached_property
    def data(self) -> float:
        """Share of the inputs in the units' fall."""
        return mean(factor_shares(self.dead)["data"])

    @cached_property
    def events(self) -> list[Event]:
        """The events that may have killed the units, the likeliest first."""
        events = killing_events(self.found, self.evidence.steps)
        if self.data < DRIFTED:  # inputs may drift a little without harm
            events = [event for event in events if event.column != DRIFT or event.ratio >= FAR]
        # what is written on and on, an average of parameters, say, is seldom to blame
        if mean(factor_shares(self.dead)["upstream"]) < MOST_BELOW:
            events = [event for event in events if event.column != UNTRAINED or event.ratio > 0]
        if events and has_far_targets(self.evidence):  # loss and gradient follow from the far targets
            others = [event for event in events if event.column not in SYMPTOMS]
            events = others or [event for event in events if event.step >= SETTLED]
        return events

    @cached_property
    def is_named(self) -> bool:
        """Whether the likeliest event says by itself what happened."""
        return bool(self.events) and (
            self.events[0].column in OUTSIDE or self.events[0].label == "loss_penalty"
        )


def _cause(case: Case) -> Cause:
    """The cause of some dead units: that of the first rule which knows one."""
    return next(cause for rule in RULES if (cause := rule(case)) is not None)


def _by_few(case: Case) -> Cause | None:
    return Cause("none") if case.share < LEAST_DEAD and not case.diverged else None


def _by_broken_inputs(case: Case) -> Cause | None:
    """Inputs that are not finite, at which the training diverged, whatever had died before."""
    end = case.found.diverged_at
    broken = [e for e in case.found.events if e.column in INPUTS and e.ratio > UNBOUNDED]
    now = [e for e in broken if end is not None and e.step <= end <= e.step + 1]
    return Cause(now[0].label, now[:1]) if now else None


def _by_new_parts(case: Case) -> Cause | None:
    """Parts that took the place of others, and whose units were dead when they were first seen."""
    for event in case.found.events:
        if event.column == UNTRAINED and event.label == "surgery" and case.share >= LEAST_DEAD:
            new = case.dead["born"] & (case.dead["first"] >= event.step)
            if new.mean() > 0.5:
                return Cause("surgery", [event])
    return None


def _by_bad_batch(case: Case) -> Cause | None:
    """A bad batch, which may spoil the statistics of norms, too."""
    first = case.events[0] if case.events and case.share >= LEAST_DEAD else None
    if first is None or first.label != "bad_batch" or first.column not in INPUTS:
        return None
    return None if order_of_inputs(case.evidence.steps) > ORDERED else Cause("bad_batch", case.events)


def _by_evaluation(case: Case) -> Cause | None:
    held_out = case.share >= LEAST_DEAD and case.found.evidence == "probe"
    return Cause("norm_stats") if held_out and is_only_evaluated(case.dead).mean() > 0.5 else None


def _by_births(case: Case) -> Cause | None:
    """The cause if most of the units were born dead."""
    born, layers = case.born, case.evidence.layers
    most = 0.5 if case.dead["born"].any() else MOSTLY
    if case.share < LEAST_DEAD or len(born) <= most * len(case.dead):
        return None
    if case.diverged and case.share < 0.5:
        return None  # births do not tell why it diverged
    if do_inputs_differ(case.dead, case.found):
        return Cause("unknown")  # training inputs open them, so it is the held-out inputs that differ
    chance = is_by_chance(born, layers)
    if chance.any() and hardly_vary(born, layers):
        return Cause("input_offset")
    if case.share < CHANCE and chance.mean() > 0.5:
        return Cause("none")
    odd = born[~chance]
    counts = odd["site"].value_counts()
    whole = (counts == layers.set_index("site")["units"].reindex(counts.index)).any()
    if len(odd) >= SEVERAL * len(born) or whole:
        label = _birth_cause(odd, layers)
        return Cause(large_from_start(case.evidence.steps) if label == "unknown" else label)
    known = bool(born["spread"].notna().any())
    below = known_median(layers["gain"]) < BELOW_HE  # biases that are usual are large beside such weights
    return Cause("weight_init" if known and below else _birth_cause(born, layers), chance=known)


def _by_flatness(case: Case) -> Cause | None:
    layers = case.evidence.layers
    if not are_mostly_flat(case.dead, layers):
        return None
    behind = layers[layers["site"].isin(case.dead["site"])]
    return Cause("norm_stats" if (normed(behind) != "").any() else "constant")


def _by_norms(case: Case) -> Cause | None:
    return Cause("norm_stats") if mean(case.own_shares["norm"]) > 0.4 else None


def _by_order(case: Case) -> Cause | None:
    """Batches that differ as the data are sorted."""
    bad = bool(case.events) and case.events[0].label == "bad_batch"
    return Cause("input_shift") if bad and order_of_inputs(case.evidence.steps) > ORDERED else None


def _by_falling_loss(case: Case) -> Cause | None:
    if case.is_named or not is_falling(case.evidence.steps, diverged=case.diverged):
        return None
    return Cause("unbounded_loss", [event for event in case.events if event.label == "labels"])


def _by_forward(case: Case) -> Cause | None:
    if case.is_named:
        return None
    symptoms = [event for event in case.events if event.column in SYMPTOMS]
    sudden = bool(symptoms) and case.evidence.has_other_forward
    if not sudden and not runs_otherwise(case.dead).mean() > OTHERWISE:
        return None
    return Cause("forward", [event for event in symptoms if event.column == "loss" or sudden])


def _by_grown_penalty(case: Case) -> Cause | None:
    """A penalty that has come to make nearly all of the gradient, and pulls downward."""
    if not case.events or case.is_named or case.events[0].label not in ("labels", "step_size"):
        return None
    loss = case.evidence.loss
    first, late = loss.get("penalty_share", 0.0), loss.get("late_penalty_share", 0.0)
    grown = is_mostly_penalty(loss, "late_") and late > 2 * first
    return Cause("loss_penalty") if grown and loss.get("late_penalty_down", 0.0) >= DOWNWARD else None


def _by_event(case: Case) -> Cause | None:
    if not case.events:
        return None
    first = case.events[0]
    if first.column in SYMPTOMS and first.label == "step_size":  # which may follow from the inputs
        if are_behind(odd_steps(case.evidence.steps), case.found.deaths):
            return Cause("bad_batch")
        if case.data > 0.5:
            return Cause("input_shift")
    return Cause(first.label, case.events)


def _by_outputs(case: Case) -> Cause | None:
    return Cause("constant") if are_outputs(case.dead, case.evidence).mean() > 0.5 else None


def _by_inputs(case: Case) -> Cause | None:
    if case.data > 0.5 or (case.data > SOME_DATA and is_on_stream_alone(case.found)):
        return Cause("input_shift")
    return Cause("unknown") if do_inputs_differ(case.dead, case.found) else None


def _lasting(case: Case) -> Cause:
    label = lasting_cause(case.own_shares, case.evidence, case.found.deaths, case.found.diverged_at)
    if label != "unknown":
        return Cause(label)
    if opens_with_first_buffers(case.dead).mean() > OTHERWISE:
        return Cause("forward")
    recurring = [event for event in case.found.events if event.again]
    return Cause("surgery", recurring) if recurring else Cause(label)


#: The rules in the order in which they are tried; the last one always knows a cause.
RULES: tuple[Callable[[Case], Cause | None], ...] = (
    _by_few,
    _by_broken_inputs,
    _by_new_parts,
    _by_bad_batch,
    _by_evaluation,
    _by_births,
    _by_flatness,
    _by_norms,
    _by_order,
    _by_falling_loss,
    _by_forward,
    _by_grown_penalty,
    _by_event,
    _by_outputs,
    _by_inputs,
    _lasting,
)


def _birth_cause(born: pd.DataFrame, layers: pd.DataFrame) -> str:
    """Why most units were born dead, from the lowest affected layer, since all above follows from it."""
    layers = layers.sort_values("depth")
    counts = born["site"].value_counts()
    known = layers[layers["site"].isin(counts.index)]
    if known.empty or born["spread"].isna().all():
        return "unknown"
    hit = counts.reindex(known["site"]).to_numpy() / known["units"].to_numpy()
    for site in known["site"][hit >= min(0.05, hit.max())]:
        causes = pd.Series(birth_causes(born[born["site"] == site], layers))
        causes = causes[causes != "upstream"]
        known = causes[causes != "unknown"]
        if len(known) and len(known) >= len(causes) / 2:
            return str(known.mode().iloc[0])
    return "unknown"
