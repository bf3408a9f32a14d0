"""harness: detect, explain and cure dying ReLUs.

Names are imported when first used, so that `import harness` is fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from harness.lazy_imports import lazy_imports

if TYPE_CHECKING:
    from harness import remedies as remedies
    from harness.activations.declare import declare_activation, undeclare_activation
    from harness.attribution.diagnosis import Diagnosis
    from harness.attribution.features import effective_rank, feature_ranks
    from harness.attribution.risk import risk
    from harness.detector.lifetimes import lifetimes
    from harness.detector.states import Thresholds, classify
    from harness.graph.plan import Site
    from harness.integrations.stop import StopOnDeadUnits
    from harness.recording.scan import DeadUnitsError, Report, scan
    from harness.recording.tree import ModelTree, tree
    from harness.store.runs import open_runs
    from harness.sweeps.diagnose import diagnose
    from harness.tracking.recorder import Recorder
    from harness.tracking.watch import watch
    from harness.trials.prescribe import prescribe
    from harness.trials.prescription import Prescription

    __version__: str

_WHERE = {
    "DeadUnitsError": "harness.recording.scan",
    "Diagnosis": "harness.attribution.diagnosis",
    "ModelTree": "harness.recording.tree",
    "Prescription": "harness.trials.prescription",
    "Recorder": "harness.tracking.recorder",
    "Report": "harness.recording.scan",
    "Site": "harness.graph.plan",
    "StopOnDeadUnits": "harness.integrations.stop",
    "Thresholds": "harness.detector.states",
    "classify": "harness.detector.states",
    "declare_activation": "harness.activations.declare",
    "diagnose": "harness.sweeps.diagnose",
    "effective_rank": "harness.attribution.features",
    "feature_ranks": "harness.attribution.features",
    "lifetimes": "harness.detector.lifetimes",
    "open_runs": "harness.store.runs",
    "prescribe": "harness.trials.prescribe",
    "risk": "harness.attribution.risk",
    "scan": "harness.recording.scan",
    "tree": "harness.recording.tree",
    "undeclare_activation": "harness.activations.declare",
    "watch": "harness.tracking.watch",
}

__all__ = [
    "DeadUnitsError",
    "Diagnosis",
    "ModelTree",
    "Prescription",
    "Recorder",
    "Report",
    "Site",
    "StopOnDeadUnits",
    "Thresholds",
    "classify",
    "declare_activation",
    "diagnose",
    "effective_rank",
    "feature_ranks",
    "lifetimes",
    "open_runs",
    "prescribe",
    "risk",
    "scan",
    "tree",
    "undeclare_activation",
    "watch",
]

_name, __dir__ = lazy_imports(__name__, _WHERE)


def __getattr__(name: str) -> Any:
    """Import a public name, or return the installed version ("unknown" if not installed)."""
    if name == "remedies":  # as the cures are printed: harness.remedies.redo(…)
        return import_module("harness.remedies")
    if name != "__version__":
        return _name(name)
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("dying-relu-harness")
    except PackageNotFoundError:
        return "unknown"
