"""Faults that kill units, injected into an ordinary training loop; each has a healthy twin.

A twin has the same initialisation, batches and optimizer. A fault had an effect if at its end a tenth of the
units more than in its twin are dead, or if it diverged and its twin did not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import harness
from harness.attribution.evidence import FACTORS

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
Loss = Callable[[Tensor, Tensor], Tensor]  # outputs, labels


@dataclass(frozen=True)
class Setting:
    """A network, an optimizer and data, on which every fault is tried."""

    network: str
    optimizer: str
    data: str
    lr: float
    batch: int = 64
    steps: int = 400
    warmup: int = 20

    @property
    def name(self) -> str:
        return f"{self.network}, {self.optimizer}, {self.data}"


@dataclass
class Training:
    """One training, which a fault changes before its first step (`before`) or while it goes on (`at`)."""

    setting: Setting
    model: nn.Module
    x: Tensor
    y: Tensor
    lr: float
    bias_lr: float = 1.0  # factor
    decay: float = 0.0
    warmup: int = 0
    loss_factor: float = 1.0
    batch: Callable[[int, Tensor], Tensor] = lambda _, x: x
    labels: Callable[[int, Tensor], Tensor] = lambda _, y: y
    lr_at: Callable[[int], float] = lambda _: 1.0
    loss_at: Callable[[int], float] = lambda _: 1.0
    write: Callable[[int], None] = lambda _: None
    loss: Loss = F.cross_entropy
    optimizer: Any = field(default=None)

    @property
    def middle(self) -> int:
        return self.setting.steps // 2

    def hidden(self) -> list[nn.Linear | nn.Conv2d]:
        """Layers that feed an activation, without the norms."""
        return [m for m in self.model.modules() if isinstance(m, nn.Linear | nn.Conv2d)][:-1]

    def norms(self) -> list[Any]:
        return [m for m in self.model.modules() if isinstance(m, BATCH_NORMS)]


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


# --- the loop ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """One training, diagnosed."""

    dead: float
    diverged: bool
    label: str
    gap: float  # |Σ Shapley - (v(all) - v(none))|, the largest over the units
    text: str


def train(
    setting: Setting, seed: int, fault: Fault | None = None, dose: float = 0.0, *, healthy: bool
) -> Result:
    """An ordinary loop around the public API.

    Args:
        setting: network, optimizer, data.
        seed: of initialisation and batches.
        fault: what it is about.
        dose: how strong.
        healthy: whether this is the twin, in which nothing is injected.
    """
    base = setting if fault is None else fault.base(setting)
    torch.manual_seed(seed)
    x, y, probe = data(base.data)
    training = Training(base, network(base.network, x), x, y, base.lr)
    if fault is not None:
        (fault.twin(training) if healthy else fault.inject(training, dose))
    optimizer = training.optimizer = make_optimizer(training)
    order = torch.Generator().manual_seed(seed)
    held_out = (probe - x.mean()) / x.std() * training.x.std() + training.x.mean()  # moved as the inputs were
    model = training.model
    rates = [group["lr"] for group in optimizer.param_groups]
    diverged = False
    with harness.Recorder(
        model, optimizer=optimizer, census_every=20, probe=held_out, evidence=True
    ) as recorder:
        for step in range(base.steps):
            training.write(step)
            factor = training.lr_at(step) * min(1.0, (step + 1) / max(1, training.warmup))
            for group, lr in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = lr * factor
            index = torch.randint(0, len(x), (base.batch,), generator=order)
            inputs = training.batch(step, training.x[index])
            loss = training.loss(model(inputs), training.labels(step, training.y[index]))
            optimizer.zero_grad()
            (loss * training.loss_at(step)).backward()
            optimizer.step()
            recorder.step(loss=loss)
            if not torch.isfinite(loss):
                diverged = True
                break
    units = recorder.evidence().units
    gap = (units[list(FACTORS)].sum(axis=1) - (units["rate_now"] - units["rate_then"])).abs().max()
    found = recorder.diagnose()
    history = recorder.history()
    kind = history[history["evidence"].eq("probe")]
    last = kind[kind["step"].eq(kind["step"].max())]
    stream = history[history["evidence"].eq("stream")]
    latest = stream[stream["step"].eq(stream["step"].max())]
    useless = ("dead", "starved") if fault is not None and fault.starves else ("dead",)
    dead = max(last["state"].eq("dead").mean(), latest["state"].isin(useless).mean())
    return Result(float(dead), diverged, found.label, float(np.nan_to_num(gap)), str(found))


def make_optimizer(t: Training) -> torch.optim.Optimizer:
    """Biases in a group of their own, as many people have them."""
    weights = [p for p in t.model.parameters() if p.ndim > 1]
    biases = [p for p in t.model.parameters() if p.ndim < 2]
    groups = [{"params": weights}, {"params": biases, "lr": t.lr * t.bias_lr}]
    if t.setting.optimizer == "adam":
        return torch.optim.Adam(groups, lr=t.lr, weight_decay=t.decay)
    momentum = 0.9 if t.setting.optimizer == "momentum" else 0.0
    return torch.optim.SGD(groups, lr=t.lr, momentum=momentum, weight_decay=t.decay)


def network(name: str, x: Tensor) -> nn.Module:
    """`MLP 3x128`, `MLP 5x64`, `CNN`, with or without batch norm."""
    norm = "batch norm" in name
    if name == "pre-norm transformer":
        return Transformer(x.shape[1])
    if name.startswith("CNN"):
        layers: list[nn.Module] = [nn.Unflatten(1, (1, 8, 8))]
        for inputs, outputs in ((1, 16), (16, 32)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1)]
            layers += [nn.BatchNorm2d(outputs)] if norm else []
            layers += [nn.ReLU(), nn.MaxPool2d(2)]
        layers += [nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)]
    else:
        depth, width = (int(n) for n in name.split(",")[0].split()[1].split("x"))
        layers, size = [], x.shape[1]
        for _ in range(depth):
            layers += [nn.Linear(size, width), *([nn.BatchNorm1d(width)] if norm else []), nn.ReLU()]
            size = width
        layers.append(nn.Linear(size, 10))
    model = nn.Sequential(*layers)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    return model


class Transformer(nn.Module):
    """Two pre-norm blocks over eight tokens."""

    def __init__(self, features: int, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Linear(features // 8, width)
        self.place = nn.Parameter(torch.randn(8, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(2))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x.unflatten(1, (8, -1))) + self.place
        for block in self.blocks:
            h = block(h)
        return self.head(h.mean(1))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.layers = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

    def forward(self, h: Tensor) -> Tensor:
        a = self.norms[0](h)
        h = h + self.attention(a, a, a, need_weights=False)[0]
        return h + self.layers(self.norms[1](h))


@cache
def data(name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Training inputs, labels, held-out inputs: digits, standardised or in [0, 1]; Gaussian classes."""
    if name == "Gaussian classes":
        draw = np.random.default_rng(0)
        labels = draw.integers(0, 10, 3000)
        centres = draw.normal(size=(10, 40))
        inputs = centres[labels] + 1.5 * draw.normal(size=(3000, 40))
    else:
        inputs, labels = load_digits(return_X_y=True)
        inputs = inputs / 16.0
        if "standardised" in name:
            inputs = (inputs - inputs.mean()) / inputs.std()
    order = np.random.default_rng(1).permutation(len(inputs))
    x = torch.tensor(inputs[order], dtype=torch.float32)
    y = torch.tensor(np.asarray(labels)[order])
    held_out = len(x) // 4
    return x[held_out:], y[held_out:], x[:held_out]
