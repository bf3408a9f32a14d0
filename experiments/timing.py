"""What an activation costs: by itself, and as part of a training step."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

NAMES = ("relu", "sigmoid", "tanh", "elu", "gelu")
#: Budget → rounds, and how often each activation takes its turn in a round.
ROUNDS = {"toy": (2, 2), "small": (16, 16), "standard": (24, 40), "full": (32, 100)}
REPEAT = {"op": 12, "step": 1}  # of a turn: a clock's reading is small beside either
BATCH, INPUTS, CLASSES = 128, 784, 10
WIDTHS = (64, 512, 2048)


def activation_costs(budget: str) -> pd.DataFrame:
    """Time every activation, in rounds.

    Returns:
        One row per device, round, what (op, step), width and activation: seconds (of one repetition: the
        median of the round's turns), relative (over ReLU's of the same round); `seed` is the round.
    """
    import torch

    rounds, turns = ROUNDS[budget]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
        rows = [row for device in devices for row in _rows(torch.device(device), rounds, turns)]
    finally:
        torch.set_num_threads(threads)
    table = pd.DataFrame(rows)
    keys = ["device", "seed", "what", "width"]
    relu = table[table["activation"] == "relu"].set_index(keys)["seconds"]
    return table.assign(
        relative=table["seconds"] / relu.reindex(pd.MultiIndex.from_frame(table[keys])).to_numpy()
    )


def _rows(device: Any, rounds: int, turns: int) -> list[dict[str, Any]]:
    makers = {"op": _op, "step": _step}
    kinds = [(what, width) for what in makers for width in WIDTHS]
    work = {(what, width, name): makers[what](name, width, device) for what, width in kinds for name in NAMES}
    for act in work.values():  # caches, allocator, kernels
        act()
    rows = []
    for number in range(rounds):
        generator = np.random.default_rng(number)
        for what, width in kinds:
            # Turns are short and in a new order each time: what slows the machine down slows all of them.
            seconds: dict[str, list[float]] = {name: [] for name in NAMES}
            for _ in range(turns):
                for name in generator.permutation(NAMES):
                    seconds[name].append(_timed(work[what, width, name], REPEAT[what], device))
            row = {"device": device.type, "seed": number, "what": what, "width": width}
            rows += [{**row, "activation": n, "seconds": float(np.median(s))} for n, s in seconds.items()]
    return rows


def _op(name: str, width: int, device: Any) -> Callable[[], None]:
    """Forward and backward of the activation alone."""
    import torch

    function = _function(name)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(BATCH, width, generator=generator).to(device).requires_grad_()
    gradient = torch.randn(BATCH, width, generator=generator).to(device)

    def act() -> None:
        torch.autograd.grad(function(z), z, gradient)

    return act


def _step(name: str, width: int, device: Any) -> Callable[[], None]:
    """A training step of a small MLP with plain SGD."""
    import torch
    from torch import nn

    from harness.config import compose
    from harness.training.models.activations import make_activation

    torch.manual_seed(0)
    act = make_activation(compose([f"activation={name}"]).activation, width)
    layers = [nn.Linear(INPUTS, width), act, nn.Linear(width, width), act, nn.Linear(width, CLASSES)]
    model = nn.Sequential(*layers).to(device)
    x = torch.randn(BATCH, INPUTS, device=device)
    y = torch.randint(CLASSES, (BATCH,), device=device)
    parameters = list(model.parameters())

    def step() -> None:
        loss = nn.functional.cross_entropy(model(x), y)
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.add_(gradient, alpha=-0.01)

    return step


def _function(name: str) -> Callable[[Any], Any]:
    import torch
    from torch.nn import functional

    return {
        "relu": torch.relu,
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "elu": functional.elu,
        "gelu": functional.gelu,
    }[name]


def _timed(work: Callable[[], None], repeat: int, device: Any) -> float:
    """Seconds of one repetition: CPU time there, since other processes would count too; else wall time."""
    import torch

    on_cpu = device.type == "cpu"
    clock = time.process_time if on_cpu else time.perf_counter
    if not on_cpu:
        torch.cuda.synchronize()
    began = clock()
    for _ in range(repeat):
        work()
    if not on_cpu:
        torch.cuda.synchronize()
    return (clock() - began) / repeat
