"""Distributed training: one census, the same on every rank."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.multiprocessing.spawn import start_processes
from torch.nn.parallel import DistributedDataParallel

import harness


def layers() -> tuple[nn.Linear, nn.Linear, nn.Linear]:
    torch.manual_seed(0)
    one, two, head = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)
    with torch.no_grad():
        one.weight[0] = torch.tensor([1.0, 0, 0, 0])  # sees only the first input
        one.bias[0] = 0.0
        two.bias[3] = -100.0
    return one, two, head


def make() -> nn.Sequential:
    one, two, head = layers()
    return nn.Sequential(one, nn.ReLU(), two, nn.ReLU(), head)


def inputs(rank: int, step: int) -> Tensor:
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(10 * rank + step))
    x[:, 0] = x[:, 0].abs() if rank == 1 else -x[:, 0].abs()  # unit 0 is alive on rank 1 alone
    return x


def steps_of(kind: str) -> int:
    return 12 if "compiled" in kind else 4  # compiled code counts once eight forwards have been seen


def work(rank: int, world: int, kind: str, port: int, out: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    model: nn.Module = make()
    if "compiled parts" in kind:
        for part in model.children():
            part.compile(backend="aot_eager")
    if kind.startswith("ddp"):
        model = DistributedDataParallel(model)
    else:
        for layer in (m for m in list(model.modules()) if isinstance(m, nn.Linear) and "whole" not in kind):
            fully_shard(layer, mesh=dist.device_mesh.init_device_mesh("cpu", (world,)))
        fully_shard(model, mesh=dist.device_mesh.init_device_mesh("cpu", (world,)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with harness.Recorder(model, optimizer=optimizer, census_every=2) as recorder:
        call = torch.compile(model, backend="aot_eager") if kind == "ddp compiled" else model
        for step in range(steps_of(kind)):
            call(inputs(rank, step)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            recorder.step()
    in_graph = "compiled" in kind and tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 13)
    assert ("in the graph" in str(recorder.plan)) is in_graph
    recorder.history().to_pickle(f"{out}/{kind}{rank}.pkl")
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("kind", "world"),
    [
        ("ddp", 3),
        ("fsdp", 2),
        ("fsdp whole", 2),
        ("ddp compiled parts", 2),
        ("fsdp compiled parts", 2),
        ("ddp compiled", 2),
    ],
)
def test_every_rank_has_the_census_of_all(kind: str, world: int, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start_processes(work, (world, kind, port, str(tmp_path)), nprocs=world, start_method="spawn")
    tables = [pd.read_pickle(tmp_path / f"{kind}{rank}.pkl") for rank in range(world)]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0])
    last = tables[0][tables[0]["step"] == steps_of(kind)]
    assert set(last["n"]) == {12 * world}
    assert last["site"].tolist() == ["1"] * 8 + ["3"] * 8
    one, two, head = layers()
    model = nn.Sequential(one, nn.ReLU(), two, nn.ReLU(), head)
    last_steps = (steps_of(kind) - 2, steps_of(kind) - 1)
    x = torch.cat([inputs(rank, step) for rank in range(world) for step in last_steps])
    z1 = one(x)
    z2 = two(z1.relu())
    assert last["active"].tolist() == [*(z1 > 0).sum(0).tolist(), *(z2 > 0).sum(0).tolist()]
    np.testing.assert_allclose(last["max"], torch.cat([z1.amax(0), z2.amax(0)]).detach(), rtol=1e-5)
    first = last.iloc[0]
    assert first["active"] == 12  # rank 1 alone
    assert first["state"] != "dead"
    assert last["state"].tolist()[11] == "dead"
    assert last["silent_for"].tolist()[11] == 6 * steps_of(kind) * world
    loss = sum(model(inputs(rank, last_steps[1])).square().mean() for rank in range(world)) / world
    assert isinstance(loss, Tensor)
    loss.backward()
    assert one.weight.grad is not None
    assert one.bias.grad is not None
    grads = one.weight.grad.square().sum(1) + one.bias.grad.square()
    np.testing.assert_allclose(last["grad_norm"].to_numpy()[:8], grads.sqrt(), rtol=1e-4, atol=1e-8)
