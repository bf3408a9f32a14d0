"""Mixed precision with a GradScaler."""

import sys

import torch
from torch import nn

import harness

output, lr = sys.argv[1], float(sys.argv[2])
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=lr)
scaler = torch.amp.GradScaler("cpu")
with harness.watch(
    model, optimizer, scaler=scaler, output=output, config={"lr": lr}, evidence=True, census_every=10
):
    for _ in range(30):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(torch.randn(32, 8)).square().mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
