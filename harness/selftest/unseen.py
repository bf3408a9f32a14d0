"""Units that cannot be observed must be reported as unobserved, never as alive or dead."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from harness.selftest.case import Case, kill, normal, sequential
from harness.selftest.truth import Keep, site, through


class NeverCalled(nn.Module):
    """A ReLU that no forward uses."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.relu, self.unused, self.head = nn.Linear(6, 5), nn.ReLU(), nn.ReLU(), nn.Linear(5, 2)
        kill(self.fc, 2)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        return self.head(self.relu(keep("relu", self.fc(x))))


class Recurrent(nn.Module):
    """A fused recurrent kernel, which exposes none of its gates."""

    def __init__(self, kind: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.rnn, self.relu, self.head = kind(3, 4, batch_first=True), nn.ReLU(), nn.Linear(4, 2)
        self.fc = nn.Linear(4, 4)
        kill(self.fc, 1)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        return self.head(self.relu(keep("relu", self.fc(self.rnn(x)[0][:, -1]))))


class Stepped(nn.Module):
    """torch's recurrent cell, step by step, which is fused as well."""

    def __init__(self, kind: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.cell, self.fc, self.relu, self.head = kind(3, 4), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)
        kill(self.fc, 1)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        state: Any = None
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
        hidden = state[0] if isinstance(state, tuple) else state
        return self.head(self.relu(keep("relu", self.fc(hidden))))


def with_part(convert: Callable[[nn.Module], Any]) -> nn.Sequential:
    """A net whose second half runs outside Python."""
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Sequential(nn.Linear(5, 5), nn.ReLU()))
    kill(model[0], 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # jit is deprecated
        model[2] = convert(model[2])
    return model


def traced(module: nn.Module) -> Any:
    return torch.jit.trace(module, torch.zeros(2, 5))


RECURRENT = (site("relu", "fc", 4, 1), site("rnn"))
STEPPED = (RECURRENT[0], site("cell"))
PART = (site("1", "0", 5, 2), site("2"))

CASES: dict[str, Case] = {
    "never called": Case(NeverCalled, (site("relu", "fc", 5, 2), site("unused")), quiet=False),
    "lstm": Case(lambda: Recurrent(nn.LSTM), RECURRENT, normal(4, 3, 3), quiet=False),
    "gru": Case(lambda: Recurrent(nn.GRU), RECURRENT, normal(4, 3, 3), quiet=False),
    "rnn": Case(
        lambda: Recurrent(partial(nn.RNN, nonlinearity="relu")), RECURRENT, normal(4, 3, 3), quiet=False
    ),
    "lstm cell": Case(lambda: Stepped(nn.LSTMCell), STEPPED, normal(4, 3, 3), quiet=False),
    "gru cell": Case(lambda: Stepped(nn.GRUCell), STEPPED, normal(4, 3, 3), quiet=False),
    "rnn cell": Case(
        lambda: Stepped(partial(nn.RNNCell, nonlinearity="relu")), STEPPED, normal(4, 3, 3), quiet=False
    ),
    "scripted part": Case(
        lambda: with_part(torch.jit.script), PART, reference=sequential({1: "1"}), quiet=False
    ),
    "traced part": Case(lambda: with_part(traced), PART, reference=sequential({1: "1"}), quiet=False),
}
