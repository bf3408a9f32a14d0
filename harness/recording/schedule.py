"""When a census is due."""

from __future__ import annotations


def due(step: int, every: int | None, *, early: bool = False) -> bool:
    """Whether a census is due after `step` completed steps.

    Args:
        step: completed optimizer steps, from 1.
        every: steps between two censuses; None: only on demand.
        early: also after 1, 2, 4, 8, … steps up to `every`, since most units die early.

    Example:
        >>> [s for s in range(1, 31) if due(s, 10, early=True)]
        [1, 2, 4, 8, 10, 20, 30]
    """
    if every is None:
        return False
    return step % every == 0 or (early and step < every and step & (step - 1) == 0)
