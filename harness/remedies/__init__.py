"""Remedies: repair units that do not work, in any PyTorch model."""

from __future__ import annotations

import warnings
from typing import Any

from harness.graph.unit_connections import Consumer, UnitConnections
from harness.remedies.auto import Auto
from harness.remedies.continual import ContinualBackprop
from harness.remedies.events import RemedyEvent
from harness.remedies.leaky import PartlyLeaky, leaky_swap
from harness.remedies.lifting import bias_lift
from harness.remedies.optimizer_state import OptimizerStateView, TorchOptimizerState
from harness.remedies.recycle import dormant, redo
from harness.remedies.shrink import shrink_perturb
from harness.remedies.surgery import reset_incoming, reset_outgoing
from harness.remedies.surrogate import Sugar, sugar
from harness.remedies.update_clipping import clip_updates
from harness.remedies.wiring import Wiring, wire

__all__ = [
    "Auto",
    "Consumer",
    "ContinualBackprop",
    "OptimizerStateView",
    "PartlyLeaky",
    "RemedyEvent",
    "Sugar",
    "TorchOptimizerState",
    "UnitConnections",
    "Wiring",
    "bias_lift",
    "clip_updates",
    "dormant",
    "leaky_swap",
    "redo",
    "reset_incoming",
    "reset_outgoing",
    "shrink_perturb",
    "sugar",
    "wire",
]

_RENAMED = {
    "Act": RemedyEvent,
    "Junction": UnitConnections,
    "Running": OptimizerStateView,
    "TorchRunning": TorchOptimizerState,
}


def __getattr__(name: str) -> Any:
    """Resolve the names of earlier versions."""
    if name not in _RENAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    new = _RENAMED[name]
    text = f"harness.remedies.{name} is deprecated: use harness.remedies.{new.__name__}"
    warnings.warn(text, DeprecationWarning, stacklevel=2)
    return new
