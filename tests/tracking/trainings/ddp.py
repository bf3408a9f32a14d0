"""Two processes (gloo); the first writes the run of both."""

import sys
import tempfile

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

import harness


def train(rank: int, output: str, lr: float, meeting: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1)))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    torch.manual_seed(rank)
    with harness.watch(model, optimizer, output=output, config={"lr": lr}, evidence=True, census_every=10):
        for _ in range(30):
            optimizer.zero_grad()
            model(torch.randn(16, 8)).square().mean().backward()
            optimizer.step()
    dist.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        told = (sys.argv[1], float(sys.argv[2]), f"{folder}/meeting")
        mp.start_processes(train, told, nprocs=2, start_method="fork")  # pyright: ignore
