"""Faults that kill units, injected into an ordinary training; each has a healthy twin.

A twin has the same initialisation, batches and optimizer. A fault had an effect if at its end a tenth of the
units more than in its twin are dead, or if it diverged and its twin did not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.benchmarks.trainings import Setting, Training, data, network


@dataclass(frozen=True)
class Fault:
    """What is done, how strongly, and what it is to be called."""

    name: str
    label: str
    doses: tuple[float, ...]
    inject: Callable[[Training, float], None]
    needs: Callable[[Setting], bool] = lambda _: True
    base: Callable[[Setting], Setting] = lambda s: s  # of the fault and its twin
    twin: Callable[[Training], None] = lambda _: None  # what only the healthy twin has
    starves: bool = False  # whether units without a gradient count too


# --- what is done -----------------------------------------------------------------------------------


@torch.no_grad()
def bias_offset(t: Training, dose: float) -> None:
    for module in t.norms() or t.hidden():
        module.bias -= dose  # type: ignore[operator]


@torch.no_grad()
def negative_weights(t: Training, dose: float) -> None:
    for module in t.hidden():
        weight: Any = module.weight
        weight -= dose / weight[0].numel() ** 0.5


@torch.no_grad()
def large_gain(t: Training, dose: float) -> None:
    for module in t.hidden():
        weight: Any = module.weight
        weight *= dose


def off_centre(t: Training, dose: float) -> None:
    t.x = t.x + dose * t.x.std()


def raw_inputs(t: Training, dose: float) -> None:
    t.x = (t.x - t.x.min()) / (t.x.max() - t.x.min()) * dose


def input_shift(t: Training, dose: float) -> None:
    size = t.x.square().mean().sqrt()
    t.batch = lambda step, x: x + dose * size if step >= t.middle else x


def bad_batch(t: Training, dose: float) -> None:
    t.batch = lambda step, x: x * dose if step == t.middle else x


def high_lr(t: Training, dose: float) -> None:
    t.lr *= dose


def lr_spike(t: Training, dose: float) -> None:
    t.lr_at = lambda step: dose if t.middle <= step < t.middle + 3 else 1.0


def no_warmup(t: Training, dose: float) -> None:
    t.lr *= dose


def warmup_twin(t: Training) -> None:
    t.warmup = t.setting.warmup * 5


def scaled_loss(t: Training, dose: float) -> None:
    t.loss_at = lambda step: dose if t.middle <= step < t.middle + 3 else 1.0


def shuffled_labels(t: Training, dose: float) -> None:
    draw = torch.Generator().manual_seed(1)

    def wrong(step: int, y: Tensor) -> Tensor:
        if step < t.middle:
            return y
        other = torch.randint(0, 10, y.shape, generator=draw)
        return torch.where(torch.rand(y.shape, generator=draw) < dose, other, y)

    t.labels = wrong


def heavy_decay(t: Training, dose: float) -> None:
    t.decay = dose / t.lr if t.setting.optimizer != "adam" else dose


def overwritten(t: Training, dose: float) -> None:
    @torch.no_grad()
    def write(step: int) -> None:
        if step == t.middle:
            module: Any = (t.norms() or t.hidden())[0]
            rows = int(0.8 * len(module.bias))
            module.bias[:rows] = -dose
            first: Any = t.hidden()[0]
            first.weight[:rows] = -first.weight[:rows].abs()

    t.write = write


def fast_biases(t: Training, dose: float) -> None:
    t.bias_lr = dose


def frozen_off(t: Training, dose: float) -> None:
    def write(step: int) -> None:
        if step == t.middle:
            for norm in t.norms():
                norm.running_mean += dose * norm.running_var.sqrt()
        if step >= t.middle:
            for norm in t.norms():
                norm.eval()

    t.write = write


def sparse(t: Training, dose: float) -> None:
    hidden: list[Tensor] = []

    def keep(module: nn.Module, args: Any, out: Tensor) -> None:
        hidden.append(out)

    for module in t.model.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(keep)
    count = sum(isinstance(module, nn.ReLU) for module in t.model.modules())

    def loss(out: Tensor, y: Tensor) -> Tensor:
        penalty = torch.stack([a.flatten(1).sum(1).mean() for a in hidden[-count:]]).sum()
        hidden.clear()
        return F.cross_entropy(out, y) + dose * penalty

    t.loss = loss


def raw_targets(t: Training, dose: float) -> None:
    t.loss = lambda out, y: F.mse_loss(out, dose * (1 + F.one_hot(y, 10)))


def unit_targets(t: Training) -> None:
    raw_targets(t, 1.0)


@torch.no_grad()
def stale_statistics(t: Training, dose: float) -> None:
    for norm in t.norms():
        norm.momentum = 0.0
        norm.running_mean += dose * norm.running_var.sqrt()


def starved_output(t: Training, dose: float) -> None:
    bottleneck(t)
    nn.init.constant_(t.model[-3].bias, -dose)  # type: ignore[index]


def bottleneck(t: Training) -> None:
    assert isinstance(t.model, nn.Sequential)
    last = t.model[-1]
    assert isinstance(last, nn.Linear)
    t.model = nn.Sequential(*t.model[:-1], nn.Linear(last.in_features, 8), nn.ReLU(), nn.Linear(8, 10))
    nn.init.kaiming_normal_(t.model[-3].weight)  # type: ignore[arg-type]
    nn.init.ones_(t.model[-3].bias)  # type: ignore[arg-type]


def transformer(setting: Setting) -> Setting:
    return replace(setting, network="pre-norm transformer", lr=min(setting.lr, 0.01))


def sgd(setting: Setting) -> bool:
    return setting.optimizer != "adam"


def normed(setting: Setting) -> bool:
    return "batch norm" in setting.network


def bare(setting: Setting) -> bool:
    return not normed(setting)


FAULTS = (
    Fault("healthy", "none", (0.0,), lambda t, d: None),
    Fault("bias offset", "bias_init", (1.5, 3.0), bias_offset),
    Fault("negative-mean weights", "weight_init", (0.5, 1.5), negative_weights),
    Fault("large init gain", "weight_init", (4.0, 10.0), large_gain),
    Fault("off-centre inputs", "input_offset", (3.0, 8.0), off_centre),
    Fault("raw inputs", "input_offset", (16.0, 255.0), raw_inputs),
    Fault("input shift", "input_shift", (3.0, -6.0), input_shift),
    Fault("bad batch", "bad_batch", (-100.0, -1000.0), bad_batch),
    Fault("lr too high", "step_size", (15.0, 60.0), high_lr),
    Fault("lr spike", "step_size", (30.0, 200.0), lr_spike),
    Fault(
        "Adam without warm-up", "step_size", (10.0, 30.0), no_warmup, lambda s: not sgd(s), twin=warmup_twin
    ),
    Fault("loss scaled for 3 steps", "step_size", (30.0, 300.0), scaled_loss, sgd),
    Fault(
        "labels shuffled",
        "labels",
        (0.8, 1.0),
        shuffled_labels,
        base=lambda s: replace(s, lr=s.lr * (3 if s.optimizer == "adam" else 2), steps=s.steps + 200),
    ),
    Fault("heavy decay", "decay", (0.03, 0.1), heavy_decay, sgd),
    Fault("layer overwritten", "surgery", (3.0, 10.0), overwritten),
    Fault("bias lr x hundreds", "bias_lr", (100.0, 400.0), fast_biases),
    Fault("frozen batch norm", "norm_stats", (4.0, 10.0), frozen_off, normed),
    Fault("L1 penalty", "loss_penalty", (0.1, 1.0), sparse),
    Fault("target scale", "target_scale", (1e3, 64e3), raw_targets, bare, twin=unit_targets),
    Fault("running statistics", "norm_stats", (4.0, 10.0), stale_statistics, normed),
    Fault("starved output", "bias_init", (30.0, 100.0), starved_output, twin=bottleneck, starves=True),
    Fault("pre-norm transformer, high lr", "step_size", (10.0, 40.0), high_lr, bare, transformer),
)


def begin(setting: Setting, seed: int, fault: Fault, dose: float = 0.0, *, healthy: bool) -> Training:
    """A training at its beginning.

    Args:
        setting: network, optimizer, data.
        seed: of initialisation and batches.
        fault: what it is about.
        dose: how strong.
        healthy: whether this is the twin, in which nothing is injected.
    """
    base = fault.base(setting)
    torch.manual_seed(seed)
    x, y, *_ = data(base.data)
    training = Training(base, seed, network(base.network, x), x, y, base.lr)
    (fault.twin(training) if healthy else fault.inject(training, dose))
    training.begin()
    return training
