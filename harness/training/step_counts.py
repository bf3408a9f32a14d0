"""How many steps a run takes, and after which of them it takes a census."""

from __future__ import annotations

from typing import Any

from harness.config import RunSpec
from harness.recording.schedule import census_steps


def total_steps(spec: RunSpec, steps_per_epoch: int) -> int:
    """Optimizer steps of the whole run: the smaller of `train.epochs` and `train.max_steps`."""
    by_epochs = spec.train.epochs * steps_per_epoch
    return by_epochs if spec.train.max_steps is None else min(by_epochs, spec.train.max_steps)


def is_tested(spec: RunSpec, step: int, steps_per_epoch: int) -> bool:
    """Whether the test set is evaluated after step number `step`, counted from 1.

    Example:
        >>> from harness.config import compose
        >>> spec = compose(["train.epochs=5", "train.test_every=2"])
        >>> [step for step in range(1, 51) if is_tested(spec, step, 10)]
        [20, 40, 50]
    """
    whole = step % (steps_per_epoch * spec.train.test_every) == 0
    return whole or step == total_steps(spec, steps_per_epoch)


def census_steps_of(spec: RunSpec, data: Any) -> frozenset[int]:
    """Return the steps after which a run takes a census.

    Args:
        spec: the run.
        data: an object with `steps_per_epoch`, `batch_size` and `probe_size`.
    """
    record = spec.record
    return census_steps(
        total_steps(spec, data.steps_per_epoch),
        record.census_every,
        early=record.early,
        share=record.census_share,
        probe=data.probe_size if record.probe else 0,
        batch=data.batch_size,
    )
