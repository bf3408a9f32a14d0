"""Training under a Recorder is training without one, to the last bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small_nets import dropout_cnn, x
from torch import Tensor, nn

import harness
from harness.selftest.attention import Encoder
from harness.selftest.plain import mlp
from harness.selftest.sharing import Mixed


@pytest.mark.parametrize("recorded", ["plain", "probe"])
@pytest.mark.parametrize("rule", ["sgd", "adam"])
@pytest.mark.parametrize(
    ("make", "shape"),
    [(mlp, (8, 6)), (dropout_cnn, (6, 1, 8, 8)), (Mixed, (8, 6)), (lambda: Encoder(0.2), (2, 3, 8))],
    ids=["mlp", "cnn", "mixed", "encoder"],
)
def test_training_is_bit_identical(
    make: Callable[[], nn.Module], shape: tuple[int, ...], rule: str, recorded: str
) -> None:
    runs = []
    steps = 100 if shape != (2, 3, 8) else 30
    for watched in (False, True):
        torch.manual_seed(0)
        model = make()
        optimizer: torch.optim.Optimizer = (
            torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
            if rule == "sgd"
            else torch.optim.Adam(model.parameters(), lr=0.01)
        )
        probe = x(16).new_ones((5, *shape[1:])) if recorded == "probe" else None
        recorder = (
            harness.Recorder(model, optimizer=optimizer, census_every=7, probe=probe) if watched else None
        )
        losses = []
        if recorder:
            recorder.__enter__()
        for _ in range(steps):
            loss = model(torch.randn(shape)).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.detach())
            if recorder:
                recorder.step()
        if recorder:
            recorder.__exit__(None, None, None)
        moments = [v for s in optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
        runs.append([*losses, *model.state_dict().values(), *moments, torch.get_rng_state()])
    assert len(runs[0]) == len(runs[1])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
