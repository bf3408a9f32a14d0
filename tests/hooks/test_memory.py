"""Memory is O(units): steps cost none, and only censuses add to the history."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_nets import small, x
from torch import Tensor, nn

import harness


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.head = nn.Linear(3, 4), nn.Linear(4, 1)

    def forward(self, batch: Tensor) -> Tensor:
        return self.head(F.relu(self.fc(batch)))


def held() -> tuple[int, int]:
    """Blocks that Python holds, and live tensors."""
    gc.collect()
    tensors = sum(issubclass(type(one), Tensor) for one in gc.get_objects())
    return sys.getallocatedblocks(), tensors


@pytest.mark.parametrize(
    ("make", "steps"), [(small, 24_000), (Functional, 16_000)], ids=["module", "function"]
)
def test_thousands_of_steps_cost_no_memory(make: Any, steps: int) -> None:
    """Flat after warm-up: most steps are forwards, some train too; windows are closed and drained."""
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    batch = x(2)

    def go(count: int) -> None:
        for i in range(count):
            if i % 100 == 0:
                model(batch).sum().backward()
                optimizer.step()
                optimizer.zero_grad()
            else:
                with torch.no_grad():
                    model(batch)
            recorder.step()
        recorder.census()
        recorder.drain()

    with harness.Recorder(model, optimizer=optimizer, census_every=None) as recorder:
        go(2000)
        before = held()
        for _ in range(4):
            go(steps // 4)
        after = held()
        tracemalloc.start()  # slow, so for the last steps only: blocks of any size, in bytes
        try:
            go(200)
            start = tracemalloc.get_traced_memory()[0]
            go(2000)
            gc.collect()
            grown = tracemalloc.get_traced_memory()[0] - start
        finally:
            tracemalloc.stop()
    assert recorder.census().n.iloc[0] == 2 * 2000
    assert after[1] <= before[1], "tensors are kept"  # others may go meanwhile
    # not one block in fifty steps; some hundred come and go with the interpreter's caches
    assert after[0] - before[0] < steps / 50, (before, after)
    assert grown < 48 * 1024


def test_only_censuses_grow_the_history() -> None:
    """Its size is proportional to the number of censuses, whatever the number of steps between them."""

    def bytes_of(censuses: int, steps: int) -> int:
        model = small()
        with torch.no_grad(), harness.Recorder(model, census_every=steps) as recorder:
            for _ in range(3 * steps):  # warm-up
                model(x(2))
                recorder.step()
            gc.collect()
            tracemalloc.start()
            try:
                for _ in range(censuses * steps):
                    model(x(2))
                    recorder.step()
                gc.collect()
                grown = tracemalloc.get_traced_memory()[0]
            finally:
                tracemalloc.stop()
        assert len(recorder.history()) == 4 * (censuses + 3)
        return grown

    bytes_of(6, 2)  # what is allocated once in a process
    # the least of two: the interpreter's caches come and go
    few, many, slow = (min(bytes_of(*each), bytes_of(*each)) for each in ((6, 2), (24, 2), (6, 12)))
    assert 2 * few < many < 6 * few
    assert slow < 1.5 * few
