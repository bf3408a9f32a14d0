"""The test set's verdict on every member."""

from __future__ import annotations

import numpy as np
import torch

from harness.training.stacked.batches import CohortData
from harness.training.stacked.network import StackedMLP, losses_and_hits


def evaluate(network: StackedMLP, data: CohortData) -> tuple[np.ndarray, np.ndarray]:
    """Mean loss and accuracy (K,) on the test set, in evaluation mode."""
    losses, hits, inputs = [], [], 0
    for x, y in data.test_batches():
        logits = network.forward(x, training=False)
        loss, hit, _ = losses_and_hits(logits, y.expand(len(logits), -1))
        losses.append(loss.double())
        hits.append(hit)
        inputs += len(y)
    return torch.stack(losses).sum(0).numpy() / inputs, torch.stack(hits).sum(0).numpy() / inputs
