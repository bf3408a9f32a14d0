"""Units that cannot be observed must be reported as unobserved, never as alive or dead."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from harness.selftest.case import Case, dead, kill, normal, sequential
from harness.selftest.truth import Keep, TrueSite, through


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


RECURRENT = (TrueSite("relu", producer="fc", size=4, dead=dead(1)), TrueSite("rnn"))
STEPPED = (RECURRENT[0], TrueSite("cell"))
PART = (TrueSite("1", producer="0", size=5, dead=dead(2)), TrueSite("2"))

CASES: dict[str, Case] = {
    "never called": Case(
        NeverCalled,
        normal(16, 6),
        (TrueSite("relu", producer="fc", size=5, dead=dead(2)), TrueSite("unused")),
        quiet=False,
    ),
    "lstm": Case(lambda: Recurrent(nn.LSTM), normal(4, 3, 3), RECURRENT, quiet=False),
    "gru": Case(lambda: Recurrent(nn.GRU), normal(4, 3, 3), RECURRENT, quiet=False),
    "rnn": Case(
        lambda: Recurrent(partial(nn.RNN, nonlinearity="relu")), normal(4, 3, 3), RECURRENT, quiet=False
    ),
    "lstm cell": Case(lambda: Stepped(nn.LSTMCell), normal(4, 3, 3), STEPPED, quiet=False),
    "gru cell": Case(lambda: Stepped(nn.GRUCell), normal(4, 3, 3), STEPPED, quiet=False),
    "rnn cell": Case(
        lambda: Stepped(partial(nn.RNNCell, nonlinearity="relu")), normal(4, 3, 3), STEPPED, quiet=False
    ),
    "scripted part": Case(
        lambda: with_part(torch.jit.script), normal(16, 6), PART, sequential({1: "1"}), quiet=False
    ),
    "traced part": Case(lambda: with_part(traced), normal(16, 6), PART, sequential({1: "1"}), quiet=False),
}
