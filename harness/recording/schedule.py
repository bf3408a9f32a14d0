"""When a census is due."""

from __future__ import annotations


def due(step: int, every: int | None, *, early: bool = False) -> bool:
    """Whether a census is due after `step` completed steps.

    Args:
        step: completed optimizer steps, from 1.
        every: steps between two censuses; None: only on demand.
        early: whether also after 1, 2, 4, 8, … steps up to `every`, since most units die early.

    Example:
        >>> [s for s in range(1, 31) if due(s, 10, early=True)]
        [1, 2, 4, 8, 10, 20, 30]
    """
    if every is None:
        return False
    return step % every == 0 or (early and step < every and step & (step - 1) == 0)


FORWARDS = 3  # cost of a training step in forward passes: one forward, and a backward of twice the cost
EVERY, SHARE = 50, 0.1  # default steps between two censuses, and default share of the cost
FREE = 3600  # probe inputs that even the shortest training may use by default: ten censuses of the digits


def census_steps(
    total: int, every: int | None, *, early: bool, share: float | None = None, probe: int = 0, batch: int = 1
) -> frozenset[int]:
    """Return the steps of a training after which a census is due; the last step always is one.

    A census of the probe costs one forward pass of its inputs, a training step about three of its batch. The
    number of censuses that a share of the training can pay for thus depends only on these sizes, not on the
    network or the machine, so that the same run has the same censuses everywhere.

    Args:
        total: steps of the training.
        every: steps between two censuses; None: 50, as far as `share` allows.
        early: whether also after 1, 2, 4, 8, … steps.
        share: share of the training's cost that the probe may take. The remaining censuses are an even
            selection of those due without a limit. None: no limit; if `every` is None too, a tenth, but at
            least `FREE` probe inputs.
        probe: number of inputs in the probe.
        batch: number of inputs per training step.

    Example:
        >>> sorted(census_steps(60, 50, early=True))
        [1, 2, 4, 8, 16, 32, 50, 60]
        >>> sorted(census_steps(60, None, early=True, share=0.25, probe=2000, batch=128))
        [8, 60]
    """
    free = 0
    if every is None:
        every, share, free = EVERY, share or SHARE, 0 if share else FREE
    steps = [step for step in range(1, total) if due(step, every, early=early)] + [total]
    if share is None or not probe:
        return frozenset(steps)
    paid = max(1, int(max(free, share * total * FORWARDS * batch) / probe))
    if paid >= len(steps):
        return frozenset(steps)
    return frozenset(steps[(k * len(steps)) // paid - 1] for k in range(1, paid + 1))
