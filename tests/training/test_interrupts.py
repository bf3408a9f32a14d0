"""SIGINT and SIGTERM at any moment: the same command ends with the same tables."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pandas as pd
import pytest
import torch

from harness.config import compose, run_folder
from harness.store.runs import Run
from harness.sweeps.job import run_job

LINE = [
    "model.width=8",
    "model.depth=2",
    "train.max_steps=12",
    "record.census_every=4",
    "record.tensorboard=false",
]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", [5, 40, 150, 400, 900])
def test_a_signal_anywhere_in_a_step_costs_nothing(number: int, moment: int, tmp_path: Path) -> None:
    whole, torn = (compose([f"output={tmp_path / name}", *LINE]) for name in ("whole", "torn"))
    run_job(whole)
    left = moment

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        """Count calls into our code while the signal is deferred; send it at one of them."""
        nonlocal left
        watched = signal.getsignal(number) not in (signal.SIG_DFL, signal.default_int_handler)
        if watched and event == "call" and f"harness{os.sep}" in frame.f_code.co_filename:
            left -= 1
            if left == 0:
                signal.raise_signal(number)
        return None

    sys.settrace(trace)
    try:
        run_job(torn)
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    run_job(torn)
    one, two = Run(run_folder(whole)), Run(run_folder(torn))
    for name in ("steps", "census", "events"):
        pd.testing.assert_frame_equal(getattr(one, name), getattr(two, name), check_exact=True)
    p, q = (torch.load(r.path / "checkpoint.pt", weights_only=True)["model"] for r in (one, two))
    assert all(torch.equal(p[name], q[name]) for name in p)
