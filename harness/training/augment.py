"""Crop and flip a batch of stored images at once, each with its own random offsets."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def crop_and_flip(x: Tensor, generator: torch.Generator, padding: int = 4) -> Tensor:
    """Flip each image with probability 1/2, zero-pad it, and crop it at random to its original size.

    Same distribution as torchvision's RandomCrop(size, padding) and RandomHorizontalFlip per image.

    Args:
        x: (B, C, H, W), any dtype and device; stored values, so that the padding is black.
        generator: on the CPU whatever the device of `x`, so that runs agree across devices.
        padding: pixels on each side.

    Returns:
        A new (B, C, H, W) tensor.

    Example:
        >>> x = torch.ones(2, 3, 8, 8, dtype=torch.uint8)
        >>> crop_and_flip(x, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3, 8, 8])
    """
    batch, channels, height, width = x.shape
    top, left = torch.randint(0, 2 * padding + 1, (2, batch), generator=generator)
    mirrored = torch.rand(batch, generator=generator) < 0.5
    padded = F.pad(x, (padding,) * 4)
    both = torch.cat((padded, padded.flip(3)))  # (2B, C, H + 2 padding, W + 2 padding)
    # A row of a crop is `width` contiguous values, so it is enough to choose where each row begins.
    plane = torch.arange(2 * batch * channels).view(2, batch, channels)[mirrored.long(), torch.arange(batch)]
    row = plane[:, :, None] * both.shape[2] + (top[:, None] + torch.arange(height))[:, None, :]
    begins = row * both.shape[3] + left[:, None, None]  # (B, C, H)
    runs = both.view(-1).unfold(0, width, 1)
    return runs.index_select(0, begins.view(-1).to(x.device)).view(x.shape)
