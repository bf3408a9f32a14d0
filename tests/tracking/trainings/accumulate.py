"""Four batches for every optimizer step."""

import sys

import torch
from torch import nn

import harness

output, lr = sys.argv[1], float(sys.argv[2])
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
with harness.watch(model, optimizer, output=output, config={"lr": lr}, evidence=True, census_every=10):
    for batch in range(120):
        (model(torch.randn(8, 8)).square().mean() / 4).backward()
        if batch % 4 == 3:
            optimizer.step()
            optimizer.zero_grad()
