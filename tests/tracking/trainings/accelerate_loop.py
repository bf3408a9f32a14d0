"""Accelerate: what `prepare` gives is watched."""

import sys

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import harness

output, lr = sys.argv[1], float(sys.argv[2])
torch.manual_seed(0)
accelerator = Accelerator(cpu=True)
net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
sgd = torch.optim.SGD(net.parameters(), lr=lr)
model, optimizer, loader = accelerator.prepare(
    net, sgd, DataLoader(TensorDataset(torch.randn(480, 8)), batch_size=16)
)
with harness.watch(model, sgd, output=output, config={"lr": lr}, evidence=True, census_every=10):
    for (x,) in loader:
        optimizer.zero_grad()
        accelerator.backward(model(x).square().mean())
        optimizer.step()
