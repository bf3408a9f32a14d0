"""Independent random streams of a run: named, counter-based, without global state.

Every draw is a function of (seed, name, counters). Arms with the same seed therefore share initial weights
and batch order, and a continued run needs no history to draw the next batch.
"""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def stream(seed: int, name: str, *counters: int) -> torch.Generator:
    """Return a CPU generator for the stream `name` of a run.

    Args:
        seed: the run's seed.
        name: what is drawn, e.g. "order", "init", "labels".
        counters: position in the stream, e.g. the epoch or the step.

    Example:
        >>> a = torch.rand(3, generator=stream(0, "order", 7))
        >>> b = torch.rand(3, generator=stream(0, "order", 7))
        >>> bool((a == b).all())
        True
    """
    digest = hashlib.sha256(repr((seed, name, *counters)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def seed_global(seed: int) -> None:
    """Seed the global generators of torch, numpy and Python, from which a user's code may draw."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
