"""How cures are applied to a training from outside; each raises ValueError where that is impossible."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from harness.recording.batches import Batch, global_states_kept
from harness.remedies import bias_lift, clip_updates, leaky_swap, redo
from harness.remedies.swapping import put
from harness.trials.fresh_training import WEIGHTED, FreshTraining, has_bias

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
PATIENCE = 5  # twentieths of the training without a better metric, after which it stops
Apply = Callable[[FreshTraining], Any]
Act = Callable[[FreshTraining, list[str]], None]  # (training, names of the sites to act on)
Able = Callable[[FreshTraining], list[str]]


def slower(part: int) -> Apply:
    return lambda training: training.at_rate(lambda *_: 1 / part)


def warm_up(training: FreshTraining) -> None:
    warm = max(1, training.steps // 10)
    training.at_rate(lambda done, _: min(1.0, (done + 1) / warm))


def clipped(training: FreshTraining) -> None:
    def before(optimizer: Optimizer, *_: Any) -> None:
        nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 1.0)

    training.optimizer.register_step_pre_hook(before)


def one_rate(training: FreshTraining) -> None:
    rates = [float(group["lr"]) for group in training.optimizer.param_groups]
    least = min((rate for rate in rates if rate > 0), default=0.0)  # a rate of 0 is a part that is frozen
    if max(rates) == least:
        raise ValueError("all parameters have the same learning rate")
    training.at_rate(lambda _, number: least / rates[number] if rates[number] > 0 else 1.0)


def updates_clipped(training: FreshTraining) -> None:
    clip_updates(training.optimizer)


def stopped_early(training: FreshTraining) -> None:
    """Keep the best model by the metric, once it has not been exceeded for a quarter of the training."""
    if training.metric is None:
        raise ValueError("the training has no metric")
    metric, best, since, stopped = training.metric, -math.inf, 0, False
    best_state: dict[str, Any] = {}

    def look(done: int) -> None:
        nonlocal best, since, stopped
        if stopped or done % training.every:
            return
        with global_states_kept():
            reached = metric()
        if reached > best:
            best, since = reached, 0
            best_state.update(deepcopy(training.model.state_dict()))
        else:
            since += 1
        if since == PATIENCE and best_state:  # a metric that was never finite has no best
            stopped = True
            training.model.load_state_dict(best_state)

    training.after_each(look)
    training.at_rate(lambda *_: 0.0 if stopped else 1.0)


def undecayed(training: FreshTraining) -> None:
    groups = [group for group in training.optimizer.param_groups if group.get("weight_decay")]
    if not groups:
        raise ValueError("the optimizer decays nothing")
    for group in groups:
        group["weight_decay"] = 0.0


@torch.no_grad()
def zero_bias(training: FreshTraining) -> None:
    biases = [layer.bias for layer in training.hidden().values() if has_bias(layer)]
    if not any(bool(bias.any()) for bias in biases):
        raise ValueError("the biases of the layers before its activations are 0")
    for bias in biases:
        bias.zero_()


def he(training: FreshTraining) -> None:
    layers = [layer for layer in training.hidden().values() if isinstance(layer, WEIGHTED)]
    if not layers:
        raise ValueError("no linear or convolutional layer stands directly before an activation")
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")


def he_and_zero(training: FreshTraining) -> None:
    he(training)
    zero_bias(training)


def swapped(make: Callable[[], nn.Module]) -> Apply:
    def apply(training: FreshTraining) -> None:
        found = [module for module in training.model.modules() if type(module) in (nn.ReLU, nn.ReLU6)]
        if not found:
            raise ValueError("the model has no module nn.ReLU; functions cannot be swapped from outside")
        for module in found:
            put(training.model, module, make())

    return apply


def standardised(training: FreshTraining) -> None:
    first = _first(training.inputs)
    centre, spread = first.mean(), first.std()
    if not bool(spread > 0) or (abs(float(centre)) < 0.1 * float(spread) and 0.5 < float(spread) < 2):
        raise ValueError("the inputs are near mean 0 and deviation 1, or constant")

    def before(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return ((args[0] - centre) / spread, *args[1:])

    training.model.register_forward_pre_hook(before)


def standardised_batches(training: FreshTraining) -> None:
    _first(training.inputs)

    def before(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        spread = args[0].std()
        return ((args[0] - args[0].mean()) / torch.where(spread > 0, spread, 1.0), *args[1:])

    training.model.register_forward_pre_hook(before)


def without_batch_norm(training: FreshTraining) -> None:
    """Replace batch norm by group norm of one group, with the same weights and biases."""
    found: list[Any] = [module for module in training.model.modules() if type(module) in BATCH_NORMS]
    if not found:
        raise ValueError("the model has no batch norm")
    for child in found:
        norm = nn.GroupNorm(1, child.num_features, child.eps, affine=child.affine)
        norm.weight, norm.bias = child.weight, child.bias
        put(training.model, child, norm)


def _first(batch: Batch) -> Tensor:
    first = batch if isinstance(batch, Tensor) else batch[0] if isinstance(batch, tuple) and batch else None
    if not isinstance(first, Tensor) or not first.is_floating_point():
        raise ValueError("the model's first input is no tensor of real numbers")
    return first


def regularly(act: Act, able: Able) -> Apply:
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


def swappable(training: FreshTraining) -> list[str]:
    return [name for name, module in training.model.named_modules() if type(module) is nn.ReLU]


def recycle(training: FreshTraining, sites: list[str]) -> None:
    redo(training.model, training.optimizer, training.inputs, tau=0.025, sites=sites)


def lift(training: FreshTraining, sites: list[str]) -> None:
    bias_lift(training.model, training.optimizer, training.inputs, sites=sites)


def swap(training: FreshTraining, sites: list[str]) -> None:
    leaky_swap(training.model, training.inputs)
