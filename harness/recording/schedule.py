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


FORWARDS = 3  # that a training step costs: its own and a backward of twice that
EVERY, SHARE = 50, 0.1  # steps between two censuses, and what these may cost, where nothing is asked for
FREE = 3600  # inputs of the probe that the shortest training passes then: ten censuses of the digits


def census_steps(
    total: int, every: int | None, *, early: bool, share: float | None = None, probe: int = 0, batch: int = 1
) -> frozenset[int]:
    """The steps of a training after which a census is due; the last one always is.

    A census of the probe costs a forward of its inputs, a training step about three of its batch: how many
    censuses a share of the training pays for follows from these sizes alone, whatever the network and the
    machine, so that the same run has the same censuses everywhere.

    Args:
        total: steps of the training.
        every: steps between two censuses; None: 50, as far as `share` pays.
        early: also after 1, 2, 4, 8, … steps.
        share: of the training's arithmetic that the probe may cost. The censuses that remain are evenly
            spread over those that would have been. None: no limit, or if `every` is None, too, a tenth.
        probe: inputs of the probe.
        batch: inputs of a training step.

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
