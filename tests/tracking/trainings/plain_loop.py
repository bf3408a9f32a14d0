"""A plain loop."""

import sys

import torch
from torch import nn

import harness

output, lr = sys.argv[1], float(sys.argv[2])
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))
optimizer = torch.optim.SGD(model.parameters(), lr=lr)
recorder = harness.watch(model, optimizer, output=output, config={"lr": lr}, evidence=True, census_every=10)
for _ in range(30):
    x = torch.randn(32, 8)
    loss = nn.functional.cross_entropy(model(x), x[:, :3].argmax(1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    recorder.step(loss=loss)
recorder.close()
