"""Sharded parameters (FSDP2): the scalars of every step are those of the whole network."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.multiprocessing.spawn import start_processes
from torch.nn.parallel import DistributedDataParallel

import harness

WORLD = 2


def inputs(rank: int, step: int) -> Tensor:
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(10 * rank + step))


def trained(model: nn.Module, rank: int) -> harness.Recorder:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.01)
    with harness.Recorder(model, optimizer=optimizer, census_every=2, evidence=True) as recorder:
        for step in range(4):
            loss = model(inputs(rank, step)).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            recorder.step(loss=loss)
    return recorder


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 2))


def work(rank: int, port: int, out: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=WORLD)
    mesh = dist.device_mesh.init_device_mesh("cpu", (WORLD,))
    sharded = net()
    for layer in (m for m in list(sharded.modules()) if isinstance(m, nn.Linear)):
        fully_shard(layer, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    for name, model in (("sharded", sharded), ("whole", DistributedDataParallel(net()))):
        recorder = trained(model, rank)
        recorder.evidence().steps.to_pickle(f"{out}/{name}{rank}.pkl")
        Path(f"{out}/{name}{rank}.txt").write_text(recorder.evidence().error)
        assert "units dead" in str(recorder.diagnose())
    dist.destroy_process_group()


def test_steps_are_those_of_the_whole_network_on_every_rank(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start_processes(work, (port, str(tmp_path)), nprocs=WORLD, start_method="spawn")
    for rank in range(WORLD):
        sharded, whole = (pd.read_pickle(tmp_path / f"{name}{rank}.pkl") for name in ("sharded", "whole"))
        assert len(sharded) == 4
        moved = sharded.pop("layer_move"), whole.pop("layer_move")  # needs a norm per matrix: not if sharded
        assert moved[0].isna().all()
        assert moved[1].gt(0).all()
        np.testing.assert_allclose(sharded, whole, rtol=1e-5)
        assert "parameters are sharded" in (tmp_path / f"sharded{rank}.txt").read_text()
        assert not (tmp_path / f"whole{rank}.txt").read_text()
