"""Tasks that change every few epochs: the task of an epoch, and what changes in it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from harness.config.schema import Data
from harness.training.randomness import stream


def task(epoch: int, every: int) -> int:
    """Return the number of the task at an epoch if it changes every `every` epochs; 0 is the original one."""
    return epoch // every if every else 0


def new_tasks(options: Data, epoch: int) -> list[str]:
    """Return the kinds of events that an epoch starts, as in the table of events."""
    periods = {
        "reshuffled_labels": options.reshuffle_labels_every,
        "permuted_inputs": options.permute_inputs_every,
    }
    return [kind for kind, every in periods.items() if task(epoch, every) > task(max(0, epoch - 1), every)]


def permutation(shape: tuple[int, ...], seed: int, period: int) -> Tensor:
    """Permutation of an input's features in a task, as indices into the flattened input: (F,) int64.

    All channels of an image use the same permutation of pixels (permuted MNIST: Goodfellow et al. 2013,
    arXiv:1312.6211).

    Example:
        >>> permutation((2, 1, 3), seed=0, period=1)
        tensor([0, 2, 1, 3, 5, 4])
    """
    channels = shape[0] if len(shape) == 3 else 1
    pixels = math.prod(shape) // channels
    mixed = torch.randperm(pixels, generator=stream(seed, "permute", period))
    return (torch.arange(channels)[:, None] * pixels + mixed).reshape(-1)
