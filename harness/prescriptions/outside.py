"""Cures that are applied from outside, to anybody's model and optimizer, before the first step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from harness.prescriptions.cures import ACTIVATION, NETWORK, NUMBER, SHAPING
from harness.recording.batches import Batch
from harness.recording.scan import scan
from harness.remedies import bias_lift, leaky_swap, redo, sugar

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass
class Patient:
    """A training that has not begun.

    Attributes:
        model: its model.
        optimizer: that steps it.
        inputs: a batch as the model takes it: what its forward was first called with.
        steps: of the training.
    """

    model: nn.Module
    optimizer: Optimizer
    inputs: Batch
    steps: int

    def hidden(self) -> list[Any]:
        """The layers that make the units of its activations."""
        names = {name for site in scan(self.model, [self.inputs]).plan.sites for name in site.producers}
        modules = dict(self.model.named_modules())
        found = [modules[name] for name in sorted(names) if isinstance(modules.get(name), nn.Module)]
        return [layer for layer in found if isinstance(getattr(layer, "weight", None), Tensor)]

    def after_each(self, act: Callable[[int], None]) -> None:
        """Call after each step of the optimizer but the last, with the number of completed steps."""
        done = 0

        def after(*_: Any) -> None:
            nonlocal done
            done += 1
            if done < self.steps:
                act(done)

        self.optimizer.register_step_post_hook(after)


@dataclass(frozen=True)
class OutsideCure:
    """One thing that is made otherwise in somebody's training.

    Attributes:
        name: in words.
        labels: the causes that it stands for.
        change: how much it changes, as of `cures.Cure`.
        code: what applies it, as Python.
        apply: does it; raises ValueError where it cannot be done.
        touches: what it changes; cures of one place do not go together.
    """

    name: str
    labels: tuple[str, ...]
    change: int
    code: str
    apply: Callable[[Patient], None]
    touches: frozenset[str]

    def __add__(self, other: OutsideCure) -> OutsideCure:
        """Both at once."""

        def both(patient: Patient) -> None:
            self.apply(patient)
            other.apply(patient)

        return OutsideCure(
            f"{self.name} + {other.name}",
            tuple(dict.fromkeys((*self.labels, *other.labels))),
            self.change + other.change,
            f"{self.code}\n{other.code}",
            both,
            self.touches | other.touches,
        )


def by_name(name: str) -> OutsideCure:
    """The cure of a name, or of several names joined by " + "."""
    first, *others = (OUTSIDE[part] for part in name.split(" + "))
    for other in others:
        first = first + other
    return first


def _slower(part: int) -> Callable[[Patient], None]:
    def apply(patient: Patient) -> None:
        for group in patient.optimizer.param_groups:
            group["lr"] /= part

    return apply


def _warm_up(patient: Patient) -> None:
    warm, done = max(1, patient.steps // 10), 0
    rates: list[Any] = []

    def before(optimizer: Optimizer, *_: Any) -> None:
        rates[:] = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] *= min(1.0, (done + 1) / warm)

    def after(optimizer: Optimizer, *_: Any) -> None:
        nonlocal done
        done += 1
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    patient.optimizer.register_step_pre_hook(before)
    patient.optimizer.register_step_post_hook(after)


def _clipped(patient: Patient) -> None:
    def before(optimizer: Optimizer, *_: Any) -> None:
        nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 1.0)

    patient.optimizer.register_step_pre_hook(before)


def _undecayed(patient: Patient) -> None:
    groups = [group for group in patient.optimizer.param_groups if group.get("weight_decay")]
    if not groups:
        raise ValueError("the optimizer decays nothing")
    for group in groups:
        group["weight_decay"] = 0.0


@torch.no_grad()
def _zero_bias(patient: Patient) -> None:
    biases = [b for layer in patient.hidden() if isinstance(b := getattr(layer, "bias", None), Tensor)]
    if not any(bool(bias.any()) for bias in biases):
        raise ValueError("the biases of the layers before its activations are 0")
    for bias in biases:
        bias.zero_()


def _he(patient: Patient) -> None:
    layers = [layer for layer in patient.hidden() if isinstance(layer, WEIGHTED)]
    if not layers:
        raise ValueError("no linear or convolutional layer stands directly before an activation")
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")


def _he_and_zero(patient: Patient) -> None:
    _he(patient)
    _zero_bias(patient)


def _swapped(make: Callable[[], nn.Module]) -> Callable[[Patient], None]:
    def apply(patient: Patient) -> None:
        found = [
            (parent, name)
            for parent in patient.model.modules()
            for name, child in parent.named_children()
            if type(child) in (nn.ReLU, nn.ReLU6)
        ]
        if not found:
            raise ValueError("the model has no module nn.ReLU; functions cannot be swapped from outside")
        for parent, name in found:
            setattr(parent, name, make())

    return apply


def _standardised(patient: Patient) -> None:
    first = _first(patient.inputs)
    centre, spread = first.mean(), first.std()
    if not bool(spread > 0) or (abs(float(centre)) < 0.1 * float(spread) and 0.5 < float(spread) < 2):
        raise ValueError("the inputs are near mean 0 and deviation 1, or constant")

    def before(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return ((args[0] - centre) / spread, *args[1:])

    patient.model.register_forward_pre_hook(before)


def _first(batch: Batch) -> Tensor:
    first = batch if isinstance(batch, Tensor) else batch[0] if isinstance(batch, tuple) and batch else None
    if not isinstance(first, Tensor) or not first.is_floating_point():
        raise ValueError("the model's first input is no tensor of real numbers")
    return first


def _every(act: Callable[[Patient], Any]) -> Callable[[Patient], None]:
    """A remedy at 20 steps of the training, on what the model was last called with."""

    def apply(patient: Patient) -> None:
        if not patient.hidden():
            raise ValueError("no layer stands directly before an activation")
        last: list[Batch] = [patient.inputs]

        def before(module: nn.Module, args: tuple[Any, ...]) -> None:
            if module.training and args:
                last[0] = args

        patient.model.register_forward_pre_hook(before)
        every = max(1, patient.steps // 20)

        def act_on_last(done: int) -> None:
            if done % every == 0:
                act(Patient(patient.model, patient.optimizer, last[0], patient.steps))

        patient.after_each(act_on_last)

    return apply


FAST = ("step_size", "bias_lr", "target_scale", "labels", "bad_batch")
RATE = 'for group in optimizer.param_groups:\n    group["lr"] /= {}'
SWAP = (
    "for parent in model.modules():\n    for name, child in parent.named_children():\n"
    "        if type(child) is nn.ReLU:\n            setattr(parent, name, {})"
)
START = "for layer in ({}):  # those before an activation\n    nn.init.{}"
REMEDY = "if step % {} == 0:  # in the loop, after optimizer.step()\n    harness.remedies.{}"
_LAYERS = "m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))"


def _cures() -> list[OutsideCure]:
    def one(
        name: str,
        labels: tuple[str, ...],
        change: int,
        touches: str,
        code: str,
        apply: Callable[[Patient], None],
    ) -> OutsideCure:
        return OutsideCure(name, labels, change, code, apply, frozenset(touches.split()))

    he, zero = START.format(_LAYERS, "kaiming_normal_(layer.weight)"), "nn.init.zeros_(layer.bias)"
    warm = "torch.optim.lr_scheduler.LinearLR(optimizer, 1e-3, total_iters=steps // 10)  # and step it"
    clip = "nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # before optimizer.step()"
    keep = 'for group in optimizer.param_groups:\n    group["weight_decay"] = 0.0'
    scaled = "x = (x - x_train.mean()) / x_train.std()  # of every input, also when testing"
    redone, lifted = "redo(model, optimizer, x, tau=0.025)", "bias_lift(model, optimizer, x)"
    return [
        *(one(f"learning rate / {k}", FAST, NUMBER, "rate", RATE.format(k), _slower(k)) for k in (3, 10, 30)),
        one("warm-up", ("step_size",), SHAPING, "warm", warm, _warm_up),
        one("gradient clipping", ("step_size", "bad_batch", "target_scale"), SHAPING, "clip", clip, _clipped),
        one("no weight decay", ("decay",), NUMBER, "decay", keep, _undecayed),
        one("zero bias", ("bias_init",), NUMBER, "bias", START.format(_LAYERS, zero[8:]), _zero_bias),
        one("He weights", ("weight_init",), NUMBER, "weights", he, _he),
        one(
            "He weights and zero bias",
            ("weight_init", "bias_init"),
            2 * NUMBER,
            "bias weights",
            f"{he}\n    {zero}",
            _he_and_zero,
        ),
        one("standardised inputs", ("input_offset",), SHAPING, "inputs", scaled, _standardised),
        one(
            "leaky_relu",
            (),
            ACTIVATION,
            "activation",
            SWAP.format("nn.LeakyReLU(0.01)"),
            _swapped(nn.LeakyReLU),
        ),
        one("gelu", (), ACTIVATION, "activation", SWAP.format("nn.GELU()"), _swapped(nn.GELU)),
        one(
            "sugar",
            (),
            NETWORK,
            "activation",
            "harness.remedies.sugar(model)",
            lambda p: _done(sugar(p.model)),
        ),
        one(
            "redo",
            (),
            NETWORK,
            "remedy",
            REMEDY.format("every", redone),
            _every(lambda p: redo(p.model, p.optimizer, p.inputs, tau=0.025)),
        ),
        one(
            "bias_lift",
            (),
            NETWORK,
            "remedy",
            REMEDY.format("every", lifted),
            _every(lambda p: bias_lift(p.model, p.optimizer, p.inputs)),
        ),
        one(
            "leaky_swap",
            (),
            NETWORK,
            "remedy activation",
            REMEDY.format("every", "leaky_swap(model, x)"),
            _every(lambda p: leaky_swap(p.model, p.inputs)),
        ),
    ]


def _done(_: object) -> None:
    """Nothing is left of what a remedy tells."""


OUTSIDE = {cure.name: cure for cure in _cures()}
#: What cannot be done from outside → how it is written.
BY_HAND = {
    "batch norm": "nn.BatchNorm1d(width) (2d after convolutions) between a layer and its activation",
    "layer norm": "nn.LayerNorm(width) between a layer and its activation",
    "skip connections": "x = x + block(x), where the shapes agree",
}
