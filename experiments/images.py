"""Images for the papers' rows: in [0, 1], from the folder of data sets."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from harness.config import compose
from harness.training.sources import load_arrays

PART = "cifar10-part.npz"  # uint8 x_train, y_train, x_test, y_test; where the whole of CIFAR-10 is not there
KEYS = ("x_train", "y_train", "x_test", "y_test")


class Images(NamedTuple):
    """float32 (n, channels, height, width) in [0, 1] and int64 (n,), for training and held out."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor


def images(name: str, root: Path, train: int = 0, test: int = 0) -> Images:
    """The first inputs of a data set.

    Args:
        name: mnist, fashion_mnist, cifar10, …
        root: folder of data sets.
        train: how many for training; 0: all.
        test: how many are held out; 0: all.

    Raises:
        ConfigError: they are not there, and cannot be fetched.
    """
    if name == "cifar10" and (root / PART).is_file() and not (root / "cifar-10-batches-py").is_dir():
        with np.load(root / PART) as part:
            x, y, x_test, y_test = (torch.from_numpy(part[key]) for key in KEYS)
        divisor = 255.0
    else:
        raw = load_arrays(compose([f"data={name}", f"data.root={root}"]).data)
        x, y, x_test, y_test, divisor = raw.x_train, raw.y_train, raw.x_test, raw.y_test, raw.divisor
    train, test = train or len(x), test or len(x_test)
    return Images(
        x[:train].float() / divisor,
        y[:train].long(),
        x_test[:test].float() / divisor,
        y_test[:test].long(),
    )
