"""What cannot be seen must be said to be unobserved, never to be alive or dead."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from harness.selftest.case import Case, dead, kill, normal
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
    """A fused recurrent kernel shows none of its gates."""

    def __init__(self, kind: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.rnn, self.relu, self.head = kind(3, 4, batch_first=True), nn.ReLU(), nn.Linear(4, 2)
        self.fc = nn.Linear(4, 4)
        kill(self.fc, 1)

    def forward(self, x: Tensor, keep: Keep = through) -> Tensor:
        return self.head(self.relu(keep("relu", self.fc(self.rnn(x)[0][:, -1]))))


CASES: dict[str, Case] = {
    "never called": Case(
        NeverCalled,
        normal(16, 6),
        (TrueSite("relu", producer="fc", size=5, dead=dead(2)), TrueSite("unused")),
        quiet=False,
    ),
    "lstm": Case(
        lambda: Recurrent(nn.LSTM),
        normal(4, 3, 3),
        (TrueSite("relu", producer="fc", size=4, dead=dead(1)), TrueSite("rnn")),
        quiet=False,
    ),
    "rnn": Case(
        lambda: Recurrent(lambda *a, **k: nn.RNN(*a, nonlinearity="relu", **k)),
        normal(4, 3, 3),
        (TrueSite("relu", producer="fc", size=4, dead=dead(1)), TrueSite("rnn")),
        quiet=False,
    ),
}
