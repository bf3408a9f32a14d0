"""A run that fails at some steps and is continued each time, beside the same run in one go."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import pytest
import torch

from harness.config import RunSpec, run_folder
from harness.store.runs import Run
from harness.sweeps.job import run_job
from harness.training import loop


def weights(made: RunSpec) -> dict[str, torch.Tensor]:
    return torch.load(run_folder(made) / "checkpoint.pt", weights_only=True)["model"]


def assert_continues(
    whole: RunSpec, torn: RunSpec, stops: Sequence[int], monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Train both, the second in parts, and hold all that they leave against each other, bit for bit.

    Returns:
        The run in one go.
    """
    run_job(whole)
    honest = loop._Run._one_step
    for stop in stops:

        def dying(self: loop._Run, stop: int = stop) -> bool:
            if self.step >= stop:
                raise OSError
            return honest(self)

        monkeypatch.setattr(loop._Run, "_one_step", dying)
        assert run_job(torn).state == "failed"
    monkeypatch.setattr(loop._Run, "_one_step", honest)
    assert run_job(torn).state == "finished"
    one, two = Run(run_folder(whole)), Run(run_folder(torn))
    for name in ("steps", "census", "events"):
        pd.testing.assert_frame_equal(getattr(one, name), getattr(two, name), check_exact=True)
    p, q = weights(whole), weights(torn)
    assert all(torch.equal(p[name], q[name]) for name in p)
    return one
