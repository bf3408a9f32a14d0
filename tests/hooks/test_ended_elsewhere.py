"""A recording may begin, train and end in different threads and tasks."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

import harness

STEPS = 12


def made() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    return model, torch.optim.SGD(model.parameters(), lr=0.01)


def trained(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for _ in range(STEPS):
        model(torch.randn(7, 8)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_a_training_in_a_thread_is_closed_in_another() -> None:
    model, optimizer = made()
    recorder = harness.watch(model, optimizer)
    thread = threading.Thread(target=trained, args=(model, optimizer))
    thread.start()
    thread.join()
    recorder.close()
    assert recorder.history()["n"].tolist() == [7 * STEPS] * 16


def test_a_training_in_a_task_is_closed_outside() -> None:
    model, optimizer = made()

    async def training() -> None:
        trained(model, optimizer)

    recorder = harness.watch(model, optimizer)
    asyncio.run(training())
    recorder.close()
    assert recorder.history()["n"].tolist() == [7 * STEPS] * 16


def test_trainings_in_a_pool() -> None:
    def run(_: int) -> list[int]:
        model, optimizer = made()
        recorder = harness.watch(model, optimizer)
        trained(model, optimizer)
        recorder.close()
        return recorder.history()["n"].tolist()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, range(8))) == [[7 * STEPS] * 16] * 8
