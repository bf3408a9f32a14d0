"""A PPO agent, called by its methods; it acts without gradients."""

import sys

import torch
from torch import Tensor, nn

import harness

output, lr = sys.argv[1], float(sys.argv[2])
torch.manual_seed(0)


class Agent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 32), nn.ReLU())
        self.policy, self.value = nn.Linear(32, 2), nn.Linear(32, 1)

    def evaluate(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.body(states)
        return self.policy(hidden).log_softmax(-1).gather(1, actions), self.value(hidden)


agent = Agent()
optimizer = torch.optim.Adam(agent.parameters(), lr=lr)
with harness.watch(agent, optimizer, output=output, config={"lr": lr}, evidence=True, census_every=10):
    for _ in range(10):
        states, actions, rewards = torch.randn(64, 4), torch.randint(2, (64, 1)), torch.randn(64, 1)
        with torch.no_grad():
            before, _ = agent.evaluate(states, actions)
        for batch in torch.randperm(64).split(16):
            after, value = agent.evaluate(states[batch], actions[batch])
            ratio, gain = (after - before[batch]).exp(), rewards[batch] - value.detach()
            clipped = torch.min(ratio * gain, ratio.clamp(0.8, 1.2) * gain)
            optimizer.zero_grad()
            ((value - rewards[batch]).square().mean() - clipped.mean()).backward()
            optimizer.step()
