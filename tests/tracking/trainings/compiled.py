"""A compiled model."""

import sys
from typing import Any

import torch
from torch import nn

import harness

output, lr = sys.argv[1], float(sys.argv[2])
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
compiled: Any = torch.compile(model, backend="aot_eager")
optimizer = torch.optim.SGD(model.parameters(), lr=lr)
with harness.watch(compiled, optimizer, output=output, config={"lr": lr}, evidence=True, census_every=10):
    for _ in range(30):
        optimizer.zero_grad()
        compiled(torch.randn(16, 8)).square().mean().backward()
        optimizer.step()
