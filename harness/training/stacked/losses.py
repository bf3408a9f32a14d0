"""Cross-entropy of a stack, with its gradient and the correct predictions from shared computations.

Legend: K members, C classes, B inputs; logits have the layout (K, C, B), so that loops run along B in memory.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from harness.training.stacked import backend
from harness.training.stacked.batches import CohortData
from harness.training.stacked.module import StackedModule
from harness.training.stacked.network import StackedMLP
from harness.training.stacked.updates import compiled


def cross_entropy(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute each member's mean loss and accuracy, and ∂loss/∂logits.

    Args:
        logits: (K, C, B).
        y: (K, B) int64.

    Returns:
        loss (K,) in the precision of the logits, accuracy (K,) float32 and gradient (K, C, B), on one device.

    Example:
        >>> loss, accuracy, gradient = cross_entropy(torch.zeros(1, 4, 2), torch.tensor([[0, 1]]))
        >>> loss, accuracy, gradient[0, :, 0]
        (tensor([1.3863]), tensor([0.5000]), tensor([-0.3750,  0.1250,  0.1250,  0.1250]))
    """
    n = y.shape[1]
    losses, hits, log_p = losses_and_hits(logits, y)
    gradient = log_p.exp_()
    if backend.compiled(logits.device):
        _towards_the_truth(gradient.numpy(), y.numpy())
    else:
        gradient.scatter_add_(1, y.unsqueeze(1), gradient.new_full((len(y), 1, n), -1.0)).div_(n)
    return losses / n, (hits / n).float(), gradient


def losses_and_hits(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sum over the inputs the loss, in the logits' precision, and the hits; also return log p (K, C, B)."""
    log_p = torch.log_softmax(logits, 1)
    if backend.compiled(logits.device):
        losses, hits = torch.zeros(2, len(y), dtype=torch.float64)
        _tally(logits.numpy(), log_p.numpy(), y.numpy(), losses.numpy(), hits.numpy())
    else:
        losses = -log_p.gather(1, y.unsqueeze(1)).sum((1, 2), dtype=torch.float64)
        hits = (logits.argmax(1) == y).sum(1).double()
    return losses.to(logits.dtype), hits, log_p


def evaluate(network: StackedMLP | StackedModule, data: CohortData) -> tuple[np.ndarray, np.ndarray]:
    """Compute mean loss and accuracy (K,) on the test set, in evaluation mode."""
    losses, hits = torch.zeros(2, data.members, dtype=torch.float64, device=data.device)
    inputs = 0
    for x, y in data.test_batches():
        logits = network.forward(x, training=False)
        loss, hit, _ = losses_and_hits(logits, y.expand(len(logits), -1))
        losses, hits, inputs = losses + loss, hits + hit, inputs + len(y)
    return (losses / inputs).cpu().numpy(), (hits / inputs).cpu().numpy()


@compiled
def _tally(logits, log_p, y, losses, hits):
    members, classes, inputs = logits.shape
    best, answer = np.empty(inputs, logits.dtype), np.empty(inputs, np.int64)
    for k in range(members):
        best[:] = logits[k, 0]
        answer[:] = 0
        for c in range(1, classes):
            row = logits[k, c]
            for b in range(inputs):  # ties go to the first class; NaN counts as largest, as in torch
                larger = (row[b] > best[b]) | ((row[b] != row[b]) & (best[b] == best[b]))
                best[b] = row[b] if larger else best[b]
                answer[b] = c if larger else answer[b]
        loss, right = 0.0, 0
        for b in range(inputs):
            loss -= log_p[k, y[k, b], b]
            right += answer[b] == y[k, b]
        losses[k], hits[k] = loss, right


@compiled
def _towards_the_truth(p, y):
    """Turn p into (p - one-hot y) / B, in place."""
    members, classes, inputs = p.shape
    n = p.dtype.type(inputs)
    one = p.dtype.type(1)
    for k in range(members):
        for b in range(inputs):
            p[k, y[k, b], b] -= one
        for c in range(classes):
            row = p[k, c]
            for b in range(inputs):
                row[b] /= n
