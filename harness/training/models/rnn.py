"""A recurrent network with explicit cells, so that its units can be observed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.config.schema import Activation, Norm, Rnn
from harness.training.models.activations import widening
from harness.training.models.layers import Dense


class RNN(nn.Module):
    """Reads an image row by row, top to bottom: (N, C, H, W) -> (N, classes).

    A cell is one linear map of (input, state) and one activation, h = act(linear(cat(x, h))). nn.RNN computes
    the same in one fused call, which hooks cannot observe. All steps of a cell are one site. The head reads
    the last state of the last cell.

    Args:
        config: units per cell, number of stacked cells.
        activation: the activation.
        shape: (C, H, W) of one image: H steps of C · W features.
        classes: outputs.
    """

    def __init__(
        self, config: Rnn, activation: Activation, shape: tuple[int, int, int], classes: int
    ) -> None:
        super().__init__()
        self.state_size = config.width * widening(activation)
        inputs = [shape[0] * shape[2]] + [self.state_size] * (config.layers - 1)
        self.cells = nn.ModuleList(
            Dense(features + self.state_size, config.width, Norm.none, activation) for features in inputs
        )
        self.head = nn.Linear(self.state_size, classes)

    def forward(self, x: Tensor) -> Tensor:
        states = [x.new_zeros(len(x), self.state_size) for _ in self.cells]
        for row in x.transpose(1, 2).flatten(2).unbind(1):  # (N, H, C·W): one row at a time
            below = row
            for index, cell in enumerate(self.cells):
                below = states[index] = cell(torch.cat((below, states[index]), 1))
        return self.head(states[-1])
