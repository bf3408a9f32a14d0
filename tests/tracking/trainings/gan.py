"""A GAN: two networks, two optimizers; the discriminator is watched."""

import sys

import torch
from torch import nn

import harness

output, lr = sys.argv[1], float(sys.argv[2])
torch.manual_seed(0)
generator = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
critic = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1))
opt_g = torch.optim.Adam(generator.parameters(), lr=lr)
opt_d = torch.optim.Adam(critic.parameters(), lr=lr)
bce = nn.functional.binary_cross_entropy_with_logits
with harness.watch(critic, opt_d, output=output, config={"lr": lr}, evidence=True, census_every=10):
    for _ in range(30):
        real, fake = torch.randn(32, 2) + 2, generator(torch.randn(32, 4))
        on_real, on_fake = critic(real), critic(fake.detach())
        loss = bce(on_real, torch.ones_like(on_real)) + bce(on_fake, torch.zeros_like(on_fake))
        opt_d.zero_grad()
        loss.backward()
        opt_d.step()
        judged = critic(fake)
        opt_g.zero_grad()
        bce(judged, torch.ones_like(judged)).backward()
        opt_g.step()
