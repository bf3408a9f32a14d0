"""Cures for configured runs: each changes one part of the configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from harness.activations.registry import RECORDS
from harness.config import RunSpec
from harness.config import schema as s
from harness.config.tree import choice

NUMBER, SHAPING, ACTIVATION, NETWORK = 1, 2, 3, 4  # how much a cure changes
Change = Callable[[RunSpec], RunSpec]


@dataclass(frozen=True)
class AnyCure:
    """A cure, however it is applied; the sum of two is both.

    Attributes:
        name: readable name.
        labels: the causes that it addresses (`harness.attribution.labels.LABELS`), the main one first.
        change: how much of the training it changes: an existing number (1), the inputs or the course of the
            training (2), the activation or its gradient (3), the network or what acts on it (4).
        groups: what it changes, e.g. configuration groups; cures that share a group are not combined.
    """

    name: str
    labels: tuple[str, ...]
    change: int
    groups: frozenset[str]

    def __add__(self, other: Any) -> Any:
        raise NotImplementedError

    def described_with(self, other: AnyCure) -> tuple[str, tuple[str, ...], int, frozenset[str]]:
        """Name, labels, change and groups of both cures together."""
        labels = tuple(dict.fromkeys((*self.labels, *other.labels)))
        name = f"{self.name} + {other.name}"
        return name, labels, self.change + other.change, self.groups | other.groups


C = TypeVar("C", bound=AnyCure)


@dataclass(frozen=True)
class Cure(AnyCure):
    """One change to a run; `apply` maps a specification to the cured one."""

    apply: Change

    def __add__(self, other: Cure) -> Cure:
        return Cure(*self.described_with(other), lambda spec: other.apply(self.apply(spec)))


def cures(spec: RunSpec, label: str, mean: float, steps: int) -> list[Cure]:
    """List the cures worth trying, most likely first, without those that would change nothing.

    Args:
        spec: the run.
        label: label of its diagnosis.
        mean: mean of its inputs, as the network sees them.
        steps: length of the whole run.

    Example:
        >>> from harness.config import compose
        >>> [cure.name for cure in cures(compose(["bias.offset=-2"]), "bias_init", 0.3, 880)][:2]
        ['zero bias', 'learning rate / 10']
    """
    families = [
        [*_added()],
        [*_rates(spec, label, steps)],
        [*_starts(spec)],
        [*_inputs(spec, mean)],
        [*_activations(spec)],
        [*_network(spec)],
        [*_remedies(spec, steps)],
    ]
    seen = [spec]
    for family in families:
        for cure in list(family):
            cured = cure.apply(spec)
            if cured in seen:  # it changes nothing, or does the same as another cure
                family.remove(cure)
            seen.append(cured)
    return in_turns(families, label)


def in_turns(families: Iterable[Iterable[C]], label: str) -> list[C]:
    """Interleave the cures of all families; cures that address the diagnosed cause move one turn ahead.

    Because a diagnosis can be wrong, a small budget should try the best cure of every family rather than all
    cures of one.

    Args:
        families: the families, each sorted with the most likely cure first.
        label: label of the diagnosis.
    """
    placed = [
        (place + (label not in cure.labels), label not in cure.labels, cure)
        for family in families
        for place, cure in enumerate(family)
    ]
    return [cure for *_, cure in sorted(placed, key=lambda one: one[:2])]


def _cure(name: str, labels: tuple[str, ...], change: int, *changes: tuple[str, Change]) -> Cure:
    def apply(spec: RunSpec) -> RunSpec:
        for _, one in changes:
            spec = one(spec)
        return spec

    return Cure(name, labels, change, frozenset(group for group, _ in changes), apply)


def _set(group: str, **values: Any) -> tuple[str, Change]:
    """Set values of a group."""
    return group, lambda spec: replace(spec, **{group: replace(getattr(spec, group), **values)})


def _choose(group: str, name: str, **values: Any) -> tuple[str, Change]:
    """Select another choice of a group, with its defaults except for these values."""
    chosen = replace(choice(group, name), **values)
    return group, lambda spec: replace(spec, **{group: chosen})


def _added() -> Iterator[Cure]:
    """Cures that remove weight decay, label noise, and changes of the labels or inputs during training."""
    true = _set("data", label_noise=0.0, reshuffle_labels_every=0)
    yield _cure("no decay", ("decay",), NUMBER, _set("optim", weight_decay=0.0))
    yield _cure("true labels", ("labels",), SHAPING, true)
    still = _set("data", permute_inputs_every=0)
    yield _cure("one order of the inputs", ("input_shift",), SHAPING, still)


def _rates(spec: RunSpec, label: str, steps: int) -> Iterator[Cure]:
    fractions = (3, 10, 30, 100) if label == "step_size" else (10, 3)
    labels = ("step_size", "bias_lr", "target_scale", "labels", "bad_batch")
    for part in fractions:
        slower = float(f"{spec.optim.lr / part:.6g}")
        yield _cure(f"learning rate / {part}", labels, NUMBER, _set("optim", lr=slower))
    schedule, warm = spec.schedule, max(1, steps // 10)
    if isinstance(schedule, s.Cosine) and schedule.warmup_steps < warm:
        yield _cure("warm-up", ("step_size",), SHAPING, _set("schedule", warmup_steps=warm))
    elif schedule.name == "constant":
        yield _cure("warm-up", ("step_size",), SHAPING, _choose("schedule", "warmup", steps=warm))
    if spec.train.clip_grad is None or spec.train.clip_grad > 1:
        labels = ("step_size", "bad_batch", "target_scale")
        yield _cure("gradient clipping", labels, SHAPING, _set("train", clip_grad=1.0))


def _starts(spec: RunSpec) -> Iterator[Cure]:
    zero, he = _choose("bias", "zero"), _choose("init", "kaiming_normal")
    yield _cure("zero bias", ("bias_init",), NUMBER, zero)
    yield _cure("He weights", ("weight_init",), NUMBER, he)
    yield _cure("He weights and zero bias", ("bias_init", "weight_init"), 2 * NUMBER, he, zero)
    if not isinstance(spec.model, s.CustomModel):
        yield _cure("asymmetric weights (RAI)", ("weight_init",), NUMBER, _choose("init", "rai"))
        flipped = _choose("init", "sign_flip")
        yield _cure("sign-flipped weights", ("weight_init", "input_offset"), NUMBER, flipped)


def _inputs(spec: RunSpec, mean: float) -> Iterator[Cure]:
    data, labels = spec.data, ("input_offset",)
    if abs(mean) > 0.01 and not data.standardise:
        centre = float(f"{data.shift - mean:.6g}")
        yield _cure("centred inputs", labels, SHAPING, _set("data", shift=centre))
    yield _cure("standardised inputs", labels, SHAPING, _set("data", standardise=True, scale=1.0, shift=0.0))


def _activations(spec: RunSpec) -> Iterator[Cure]:
    for name in ("leaky_relu", "gelu", "elu") if spec.activation.name in ("relu", "relu6") else ():
        if RECORDS[name].outputs == RECORDS[spec.activation.name].outputs:
            yield _cure(name, (), ACTIVATION, _choose("activation", name))


def _network(spec: RunSpec) -> Iterator[Cure]:
    model = spec.model
    if isinstance(model, s.Mlp | s.Cnn | s.Vgg) and model.norm is s.Norm.none:
        labels = ("input_offset", "input_shift")
        yield _cure("batch norm", labels, NETWORK, _set("model", norm=s.Norm.batch))
        yield _cure("layer norm", ("input_shift",), NETWORK, _set("model", norm=s.Norm.layer))
    if isinstance(model, s.Mlp) and model.skip is s.Skip.none and model.depth > 2:
        yield _cure("skip connections", (), NETWORK, _set("model", skip=s.Skip.pre_norm))


def _remedies(spec: RunSpec, steps: int) -> Iterator[Cure]:
    if spec.remedy.name != "none":
        return
    every = max(1, min(100, steps // 20))
    for name in ("redo", "bias_lift", "leaky_swap"):
        yield _cure(name, (), NETWORK, _choose("remedy", name, every=every))
    yield _cure("sugar", (), NETWORK, _choose("remedy", "sugar"))
    yield _cure("continual_backprop", (), NETWORK, _choose("remedy", "continual_backprop"))
