"""Conclude a run: final metrics, the verdict, and package versions."""

from __future__ import annotations

import math
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.detector.states import Thresholds
    from harness.store.runs import Run

PACKAGES = ("dying-relu-harness", "torch", "torchvision", "hydra-core", "numpy", "pandas", "pyarrow", "numba")


def concluded(
    run: Run,
    thresholds: Thresholds,
    healthy: float,
    *,
    steps: int,
    diverged_at: int | None,
    diagnose: bool = False,
) -> dict[str, Any]:
    """Return the facts about a run's end for its status.

    Args:
        run: a run with complete tables.
        thresholds: thresholds of the states.
        healthy: largest dead share that counts as healthy.
        steps: completed steps.
        diverged_at: step of the first non-finite loss, if any.
        diagnose: whether to diagnose the cause from its evidence.
    """
    final, text = final_metrics(run, thresholds, healthy, diverged_at)
    facts = {"state": "finished" if diverged_at is None else "diverged", "steps": steps, "final": final}
    facts |= {"diverged_at": diverged_at, "verdict": text, "error": None}
    if diagnose and len(run.census):
        from harness.report.report_command import stored_diagnosis

        diagnosis = stored_diagnosis(run)
        final["cause"], facts["diagnosis"] = diagnosis.label, str(diagnosis)
    return facts


def final_metrics(
    run: Run, thresholds: Thresholds, healthy: float, diverged_at: int | None
) -> tuple[dict[str, Any], str]:
    """Compute the final metrics, and the verdict in words."""
    import numpy as np

    from harness.detector.verdict import verdict

    loss, test_loss, accuracy = (run.steps[c].to_numpy(float) for c in ("loss", "test_loss", "test_accuracy"))
    finite, tested, judged = np.isfinite(loss), ~np.isnan(accuracy), ~np.isnan(test_loss)
    final: dict[str, Any] = {
        "loss": float(loss[finite][-1]) if finite.any() else None,
        "test_loss": _finite(test_loss[judged][-1]) if judged.any() else None,
        "accuracy": float(accuracy[tested][-1]) if tested.any() else None,
    }
    history = run.census
    if history.empty:
        return final, "Nothing was recorded (record=off): no statement about dead units."
    found = verdict(history, thresholds, healthy=healthy, diverged_at=diverged_at)
    return final | found.metrics(), found.text


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect results."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
