"""A sparse autoencoder with TopK: selected latents are the open ones."""

import sys

import torch
from torch import Tensor, nn

import harness

output, lr = sys.argv[1], float(sys.argv[2])
torch.manual_seed(0)


def selected(z: Tensor) -> Tensor:
    return z >= z.topk(4, -1).values[..., -1:]


@harness.declare_activation(open=selected)
class TopK(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return z * selected(z)


sae = nn.Sequential(nn.Linear(16, 64), TopK(), nn.Linear(64, 16))
optimizer = torch.optim.Adam(sae.parameters(), lr=lr)
with harness.watch(sae, optimizer, output=output, config={"lr": lr}, evidence=True, census_every=10):
    for _ in range(30):
        x = torch.randn(64, 16) + 1
        optimizer.zero_grad()
        (sae(x) - x).square().mean().backward()
        optimizer.step()
