"""Images for the papers' rows: in [0, 1], from the folder of data sets."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from experiments.budgets import source
from harness.config import compose
from harness.training.sources import load_arrays


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
    raw = load_arrays(compose(source(name, root)).data)
    train, test = train or len(raw.x_train), test or len(raw.x_test)
    return Images(
        raw.x_train[:train].float() / raw.divisor,
        raw.y_train[:train].long(),
        raw.x_test[:test].float() / raw.divisor,
        raw.y_test[:test].long(),
    )
