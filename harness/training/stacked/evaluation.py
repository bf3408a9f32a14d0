"""The test set's verdict on every member."""

from __future__ import annotations

import numpy as np
import torch

from harness.training.stacked.batches import CohortData
from harness.training.stacked.network import StackedMLP


def evaluate(network: StackedMLP, data: CohortData) -> tuple[np.ndarray, np.ndarray]:
    """Mean loss and accuracy (K,) on the test set, in evaluation mode."""
    losses, hits, inputs = [], [], 0
    for x, y in data.test_batches():
        logits = network.forward(x, training=False)
        places = y.expand(len(logits), -1)
        log_p = torch.log_softmax(logits, -1)
        losses.append(-log_p.gather(-1, places.unsqueeze(-1)).squeeze(-1).sum(1).double())
        hits.append((logits.argmax(-1) == places).sum(1))
        inputs += len(y)
    return torch.stack(losses).sum(0).numpy() / inputs, torch.stack(hits).sum(0).numpy() / inputs
