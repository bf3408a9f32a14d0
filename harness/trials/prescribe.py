"""`harness.prescribe`, for a stored run or a training of your own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

from harness.store.runs import Run
from harness.trials.prescription import Prescription

if TYPE_CHECKING:
    from harness.trials.own_training import Make


def prescribe(what: Any, **options: Any) -> Prescription:
    """Try the plausible cures on a training, and recommend the smallest that works.

    Args:
        what: a run from `open_runs` or its folder (options: budget, seeds, say, begin; see
            `harness.trials.stored_run.prescribe_run`); or a function seed → (model, optimizer, batches,
            loss[, metric]), with `steps=` (see `harness.trials.own_training.prescribe_training`).
        options: passed on to that function.

    Returns:
        The recommended cure and everything that was tried; `print` it.

    Raises:
        TypeError: `what` is neither.
        FileNotFoundError, ValueError: raised by those two functions.

    Example:
        >>> import tempfile, harness
        >>> from harness.config import compose
        >>> from harness.sweeps.job import run_job
        >>> words = ["train.max_steps=100", "model.width=16", f"output={tempfile.mkdtemp()}"]
        >>> harness.prescribe(run_job(compose(words)).path).cure
        ''
    """
    if isinstance(what, Run | str | os.PathLike):
        from harness.trials.stored_run import prescribe_run

        return prescribe_run(what, **options)
    if callable(what):
        from harness.trials.own_training import prescribe_training

        return prescribe_training(cast("Make", what), **options)
    raise TypeError(f"prescribe: expected a run, its folder or a function, but got {type(what).__name__}")
