"""skorch: a network that is fitted like one of scikit-learn's."""

import sys

import numpy as np
import torch
from skorch import NeuralNetRegressor
from torch import nn

import harness

output, lr = sys.argv[1], float(sys.argv[2])
torch.manual_seed(0)
module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
net = NeuralNetRegressor(module, max_epochs=3, batch_size=16, lr=lr, verbose=0, train_split=None).initialize()
x = np.random.default_rng(0).normal(size=(160, 8)).astype(np.float32)
with harness.watch(
    net.module_, net.optimizer_, output=output, config={"lr": lr}, evidence=True, census_every=10
):
    net.partial_fit(x, x[:, :1])
