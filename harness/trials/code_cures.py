"""Cures applied from outside, to any model and optimizer, before the first step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from harness.recording.batches import Batch
from harness.recording.scan import scan
from harness.remedies import bias_lift, leaky_swap, redo, sugar, wire
from harness.remedies.lifting import liftable
from harness.trials.cures import ACTIVATION, NETWORK, NUMBER, SHAPING

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass
class FreshTraining:
    """A training that has not begun.

    Attributes:
        model: the model to train.
        optimizer: the optimizer of its parameters.
        inputs: the arguments of the first call of the model's forward.
        steps: length of the training.
    """

    model: nn.Module
    optimizer: Optimizer
    inputs: Batch
    steps: int

    @property
    def every(self) -> int:
        """Number of steps between two applications of a remedy."""
        return max(1, self.steps // 20)

    def hidden(self) -> dict[str, Any]:
        """The layers that compute the pre-activations, by name."""
        names = {name for site in scan(self.model, [self.inputs]).plan.sites for name in site.producers}
        modules = self.model.named_modules()
        return {n: m for n, m in modules if n in names and isinstance(getattr(m, "weight", None), Tensor)}

    def written_out(self, code: str) -> str:
        """Fill a cure's code with the names and numbers of this training."""
        named = {
            "LAYERS": lambda: [name for name, layer in self.hidden().items() if isinstance(layer, WEIGHTED)],
            "BIASES": lambda: [name for name, layer in self.hidden().items() if _has_bias(layer)],
            "EVERY": lambda: self.every,
            "REPLACEABLE": lambda: _replaceable(self),
            "LIFTABLE": lambda: _liftable(self),
        }
        for word, value in named.items():
            code = code.replace(word, str(value())) if word in code else code
        return code

    def after_each(self, act: Callable[[int], None]) -> None:
        """Call `act` with the number of completed steps after every optimizer step except the last."""
        done = 0

        def after(*_: Any) -> None:
            nonlocal done
            done += 1
            if done < self.steps:
                act(done)

        self.optimizer.register_step_post_hook(after)


Apply = Callable[[FreshTraining], Any]
Act = Callable[[FreshTraining, list[str]], None]  # (training, names of the sites to act on)
Able = Callable[[FreshTraining], list[str]]


@dataclass(frozen=True)
class CodeCure:
    """One change to a user's own training.

    Attributes:
        name: readable name.
        labels: the causes that it addresses.
        change: how much it changes (see `cures.Cure`).
        code: Python code that applies it; `FreshTraining.written_out` fills in the names.
        apply: applies the cure; raises ValueError if that is impossible.
        groups: what it changes; cures that share a group are not combined.
    """

    name: str
    labels: tuple[str, ...]
    change: int
    code: str
    apply: Apply
    groups: frozenset[str]

    def __add__(self, other: CodeCure) -> CodeCure:
        """Combine two cures."""

        def both(training: FreshTraining) -> None:
            self.apply(training)
            other.apply(training)

        return CodeCure(
            f"{self.name} + {other.name}",
            tuple(dict.fromkeys((*self.labels, *other.labels))),
            self.change + other.change,
            f"{self.code}\n{other.code}",
            both,
            self.groups | other.groups,
        )


def by_name(name: str) -> CodeCure:
    """Return the cure with this name; names joined by " + " give their combination."""
    first, *others = (CODE_CURES[part] for part in name.split(" + "))
    for other in others:
        first = first + other
    return first


def _has_bias(layer: Any) -> bool:
    return isinstance(getattr(layer, "bias", None), Tensor)


def _slower(part: int) -> Apply:
    def apply(training: FreshTraining) -> None:
        for group in training.optimizer.param_groups:
            group["lr"] /= part

    return apply


def _warm_up(training: FreshTraining) -> None:
    warm, done = max(1, training.steps // 10), 0
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

    training.optimizer.register_step_pre_hook(before)
    training.optimizer.register_step_post_hook(after)


def _clipped(training: FreshTraining) -> None:
    def before(optimizer: Optimizer, *_: Any) -> None:
        nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 1.0)

    training.optimizer.register_step_pre_hook(before)


def _undecayed(training: FreshTraining) -> None:
    groups = [group for group in training.optimizer.param_groups if group.get("weight_decay")]
    if not groups:
        raise ValueError("the optimizer decays nothing")
    for group in groups:
        group["weight_decay"] = 0.0


@torch.no_grad()
def _zero_bias(training: FreshTraining) -> None:
    biases = [layer.bias for layer in training.hidden().values() if _has_bias(layer)]
    if not any(bool(bias.any()) for bias in biases):
        raise ValueError("the biases of the layers before its activations are 0")
    for bias in biases:
        bias.zero_()


def _he(training: FreshTraining) -> None:
    layers = [layer for layer in training.hidden().values() if isinstance(layer, WEIGHTED)]
    if not layers:
        raise ValueError("no linear or convolutional layer stands directly before an activation")
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")


def _he_and_zero(training: FreshTraining) -> None:
    _he(training)
    _zero_bias(training)


def _swapped(make: Callable[[], nn.Module]) -> Apply:
    def apply(training: FreshTraining) -> None:
        found = [
            (parent, name)
            for parent in training.model.modules()
            for name, child in parent.named_children()
            if type(child) in (nn.ReLU, nn.ReLU6)
        ]
        if not found:
            raise ValueError("the model has no module nn.ReLU; functions cannot be swapped from outside")
        for parent, name in found:
            setattr(parent, name, make())

    return apply


def _standardised(training: FreshTraining) -> None:
    first = _first(training.inputs)
    centre, spread = first.mean(), first.std()
    if not bool(spread > 0) or (abs(float(centre)) < 0.1 * float(spread) and 0.5 < float(spread) < 2):
        raise ValueError("the inputs are near mean 0 and deviation 1, or constant")

    def before(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return ((args[0] - centre) / spread, *args[1:])

    training.model.register_forward_pre_hook(before)


def _first(batch: Batch) -> Tensor:
    first = batch if isinstance(batch, Tensor) else batch[0] if isinstance(batch, tuple) and batch else None
    if not isinstance(first, Tensor) or not first.is_floating_point():
        raise ValueError("the model's first input is no tensor of real numbers")
    return first


def _every(act: Act, able: Able) -> Apply:
    """Apply a remedy about 20 times in the training, on the model's latest inputs, at the sites of `able`."""

    def apply(training: FreshTraining) -> None:
        sites, last = able(training), [training.inputs]
        if not sites:
            raise ValueError("it can act at no site of this model")

        def before(module: nn.Module, args: tuple[Any, ...]) -> None:
            if module.training and args:
                last[0] = args

        def act_on_last(done: int) -> None:
            if done % training.every == 0:
                act(replace(training, inputs=last[0]), sites)

        training.model.register_forward_pre_hook(before)
        training.after_each(act_on_last)

    return apply


def _replaceable(training: FreshTraining) -> list[str]:
    return [one.site for one in wire(training.model, training.inputs).connections]


def _liftable(training: FreshTraining) -> list[str]:
    return [one.site for one in liftable(training.model, training.inputs)[0]]


def _swappable(training: FreshTraining) -> list[str]:
    return [name for name, module in training.model.named_modules() if type(module) is nn.ReLU]


def _redo(training: FreshTraining, sites: list[str]) -> None:
    redo(training.model, training.optimizer, training.inputs, tau=0.025, sites=sites)


def _lift(training: FreshTraining, sites: list[str]) -> None:
    bias_lift(training.model, training.optimizer, training.inputs, sites=sites)


def _swap(training: FreshTraining, sites: list[str]) -> None:
    leaky_swap(training.model, training.inputs)


FAST = ("step_size", "bias_lr", "target_scale", "labels", "bad_batch")
RATE = 'for group in optimizer.param_groups:\n    group["lr"] /= {}'
WARM = "torch.optim.lr_scheduler.LinearLR(optimizer, 1e-3, total_iters=steps // 10)  # and step it"
CLIP = "nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # before optimizer.step()"
UNDECAYED = 'for group in optimizer.param_groups:\n    group["weight_decay"] = 0.0'
HE = "for name in LAYERS:\n    nn.init.kaiming_normal_(model.get_submodule(name).weight)"
ZERO = "for name in BIASES:\n    nn.init.zeros_(model.get_submodule(name).bias)"
SCALED = "x = (x - x_train.mean()) / x_train.std()  # of every input, also when testing"
SWAP = (
    "for parent in list(model.modules()):\n    for name, child in parent.named_children():\n"
    "        if type(child) is nn.ReLU:\n            setattr(parent, name, {})"
)
REMEDY = "if step % EVERY == 0:  # in the loop, after optimizer.step()\n    harness.remedies.{}"


def _cures() -> Iterator[CodeCure]:
    def one(
        name: str, apply: Apply, code: str, groups: str, change: int, labels: tuple[str, ...] = ()
    ) -> CodeCure:
        return CodeCure(name, labels, change, code, apply, frozenset(groups.split()))

    for part in (3, 10, 30):
        yield one(f"learning rate / {part}", _slower(part), RATE.format(part), "rate", NUMBER, FAST)
    yield one("warm-up", _warm_up, WARM, "rate", SHAPING, ("step_size",))
    labels = ("step_size", "bad_batch", "target_scale")
    yield one("gradient clipping", _clipped, CLIP, "clip", SHAPING, labels)
    yield one("no decay", _undecayed, UNDECAYED, "decay", NUMBER, ("decay",))
    yield one("zero bias", _zero_bias, ZERO, "start", NUMBER, ("bias_init",))
    yield one("He weights", _he, HE, "start", NUMBER, ("weight_init",))
    both = ("weight_init", "bias_init")
    yield one("He weights and zero bias", _he_and_zero, f"{HE}\n{ZERO}", "start", 2 * NUMBER, both)
    yield one("standardised inputs", _standardised, SCALED, "inputs", SHAPING, ("input_offset",))
    leaky, gelu = SWAP.format("nn.LeakyReLU(0.01)"), SWAP.format("nn.GELU()")
    yield one("leaky_relu", _swapped(nn.LeakyReLU), leaky, "activation", ACTIVATION)
    yield one("gelu", _swapped(nn.GELU), gelu, "activation", ACTIVATION)
    sugared = "harness.remedies.sugar(model)"
    yield one("sugar", lambda t: sugar(t.model), sugared, "activation", NETWORK)
    code = REMEDY.format("redo(model, optimizer, x, tau=0.025, sites=REPLACEABLE)")
    yield one("redo", _every(_redo, _replaceable), code, "remedy", NETWORK)
    code = REMEDY.format("bias_lift(model, optimizer, x, sites=LIFTABLE)")
    yield one("bias_lift", _every(_lift, _liftable), code, "remedy", NETWORK)
    code = REMEDY.format("leaky_swap(model, x)")
    yield one("leaky_swap", _every(_swap, _swappable), code, "remedy activation", NETWORK)


CODE_CURES = {cure.name: cure for cure in _cures()}
#: Changes that cannot be made from outside → how to write them by hand.
BY_HAND = {
    "batch norm": "nn.BatchNorm1d(width) (2d after convolutions) between a layer and its activation",
    "layer norm": "nn.LayerNorm(width) between a layer and its activation",
    "skip connections": "x = x + block(x), where the shapes agree",
}
