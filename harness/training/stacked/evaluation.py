"""The test set's verdict on every member."""

from __future__ import annotations

import numpy as np

from harness.training.stacked.batches import CohortData
from harness.training.stacked.losses import losses_and_hits
from harness.training.stacked.network import StackedMLP


def evaluate(network: StackedMLP, data: CohortData) -> tuple[np.ndarray, np.ndarray]:
    """Mean loss and accuracy (K,) on the test set, in evaluation mode."""
    losses, hits, inputs = np.zeros(data.members), np.zeros(data.members), 0
    for x, y in data.test_batches():
        logits = network.forward(x, training=False)
        loss, hit, _ = losses_and_hits(logits, y.expand(len(logits), -1))
        losses, hits, inputs = losses + loss, hits + hit, inputs + len(y)
    return losses / inputs, hits / inputs
