"""Repeated calls of every layout take a fast path: their counts are those of plain sums."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import harness

STEPS = 24  # well beyond the traced forwards


class Seen(nn.Module):
    """Keeps what its activation is given, with its gradient, units last."""

    def __init__(
        self, activation: Callable[[Tensor], Tensor], units_last: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.act, self._units_last = activation, units_last
        self.z: list[Tensor] = []
        self.squares: list[Tensor] = []

    def forward(self, z: Tensor) -> Tensor:
        rows = self._units_last
        self.z.append(rows(z.detach()).double())
        if z.requires_grad:
            z.register_hook(lambda g: self.squares.append(rows(g.detach()).double().square().sum(0)))
        return self.act(z)


def last(z: Tensor) -> Tensor:
    return z.reshape(-1, z.shape[-1])


def channels(z: Tensor) -> Tensor:
    return z.movedim(1, -1).reshape(-1, z.shape[1])


def members(z: Tensor) -> Tensor:
    return z.movedim(1, 0).reshape(z.shape[1], -1)


def grouped(z: Tensor) -> Tensor:  # (B, channels · positions), flattened before
    return z.reshape(len(z), 6, -1).movedim(1, -1).reshape(-1, 6)


class Dense(nn.Module):
    def __init__(self, seen: Seen, kind: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.layer, self.seen, self.out = nn.Linear(5, 6), seen, nn.Linear(6, 2)
        self.to(kind)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.seen(self.layer(x)))


class Halves(Dense):
    def __init__(self, seen: Seen) -> None:
        super().__init__(seen)
        self.layer = nn.Linear(5, 12)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.layer(x).chunk(2, -1)
        return self.out(self.seen(gate) * up)


class Ensemble(nn.Module):
    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self.seen = seen
        self.weight, self.bias = nn.Parameter(torch.randn(3, 5, 4)), nn.Parameter(torch.randn(3, 1, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.seen(torch.baddbmm(self.bias, x.expand(3, *x.shape), self.weight))


class Images(nn.Module):
    def __init__(self, seen: Seen, *, flat: bool = False) -> None:
        super().__init__()
        self.layer, self.seen, self._flat = nn.Conv1d(5, 6, 1), seen, flat

    def forward(self, x: Tensor) -> Tensor:
        z = self.layer(x)
        return self.seen(z.flatten(1) if self._flat else z)


class Total:
    """A statistic of one's own, which has no compiled loop."""

    def zero(self, units: int, device: torch.device | str) -> None:
        self.total = torch.zeros(units, dtype=torch.float64, device=device)

    def update(self, z: Tensor) -> None:
        self.total += z.double().sum(0)

    def update_gradient(self, gradient: Tensor) -> None:
        pass

    def merge(self, other: Total) -> None:
        self.total += other.total

    def columns(self) -> dict[str, np.ndarray]:
        return {"total": self.total.numpy()}


def of(*shape: int) -> Callable[[int], Tensor]:
    return lambda step: torch.randn(*shape)


def halves(step: int) -> Tensor:
    return torch.randn(8, 5).bfloat16()


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Tensor]]] = {
    "new batch sizes": (lambda: Dense(Seen(nn.ReLU(), last)), lambda step: torch.randn(3 + step % 7, 5)),
    "new lengths": (lambda: Dense(Seen(nn.ReLU(), last)), lambda step: torch.randn(3, 1 + step % 5, 5)),
    "bfloat16": (lambda: Dense(Seen(nn.ReLU(), last), torch.bfloat16), halves),
    "a view": (lambda: Halves(Seen(nn.ReLU(), last)), of(7, 5)),
    "two axes": (lambda: Ensemble(Seen(nn.ReLU(), members)), of(7, 5)),
    "two axes, new sizes": (lambda: Ensemble(Seen(nn.ReLU(), members)), lambda k: torch.randn(3 + k % 4, 5)),
    "channels": (lambda: Images(Seen(nn.ReLU(), channels)), lambda step: torch.randn(4, 5, 2 + step % 3)),
    "flattened channels": (lambda: Images(Seen(nn.ReLU(), grouped), flat=True), of(4, 5, 3)),
    "learned slopes": (lambda: Dense(Seen(nn.PReLU(6), last)), of(7, 5)),
    "learned slopes in bfloat16": (lambda: Dense(Seen(nn.PReLU(6), last), torch.bfloat16), halves),
    "one learned slope": (lambda: Dense(Seen(nn.PReLU(), last)), of(7, 5)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("statistics", [False, True], ids=["alone", "with a statistic"])
def test_counts_and_gradients_are_plain_sums(case: str, statistics: bool) -> None:
    torch.manual_seed(0)
    make, batch = CASES[case]
    model = make()
    seen = next(m for m in model.modules() if isinstance(m, Seen))
    opened: list[Tensor] = []
    recorder = harness.Recorder(model, statistics=[Total()] if statistics else [])
    with recorder:
        for step in range(STEPS):
            if isinstance(seen.act, nn.PReLU):  # the slopes come and go
                with torch.no_grad():
                    seen.act.weight.fill_(0.0 if step % 3 else 0.25)
            model.zero_grad()
            model(batch(step)).float().square().sum().backward()
            z = seen.z[-1]
            shut = not isinstance(seen.act, nn.PReLU) or step % 3 > 0
            opened.append((z > 0).sum(0) if shut else torch.full((z.shape[1],), len(z)))
            recorder.step()
        census = recorder.census()
    z = torch.cat(seen.z)
    assert census["n"].tolist() == [len(z)] * z.shape[1]
    assert census["active"].tolist() == torch.stack(opened).sum(0).tolist()
    assert census["mean"].tolist() == pytest.approx(z.mean(0).tolist(), rel=1e-5, abs=1e-6)
    assert census["max"].tolist() == z.amax(0).tolist()
    if statistics:
        assert census["total"].tolist() == pytest.approx(z.sum(0).tolist(), rel=1e-4, abs=1e-4)
    rms = (torch.stack(seen.squares).sum(0) / len(z)).sqrt()
    assert census["grad_rms"].tolist() == pytest.approx(rms.tolist(), rel=1e-4)


def test_a_capture_in_the_middle_of_a_forward_takes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act, self.capturing = nn.PReLU(), False  # its gate is learned, which no replay reads

        def forward(self, x: Tensor) -> Tensor:
            with monkeypatch.context() as patch:
                patch.setattr(torch.cuda, "is_initialized", lambda: self.capturing)
                patch.setattr(torch.cuda, "is_current_stream_capturing", lambda: self.capturing)
                return self.act(x)

    part = Part()
    model = nn.Sequential(nn.Linear(3, 4), part, nn.Linear(4, 1))
    recorder = harness.Recorder(model, statistics=[Total()])
    with recorder:
        for step in range(STEPS):
            part.capturing = step == 20
            model(torch.randn(5, 3)).sum().backward()
            recorder.step()
        with pytest.warns(UserWarning, match="a captured CUDA graph counts units with a fixed gate alone"):
            census = recorder.census()
    assert set(census["n"]) == {5 * (STEPS - 1)}
