"""Alternatives: which units would open if one thing that no optimizer trains were otherwise.

Each is one pass over the stream's latest inputs, with the trained parameters as they are.
"""

from __future__ import annotations

import numpy as np

from harness.activations.stored import stored
from harness.attribution.replay import NORMS, Replay
from harness.attribution.snapshots import Snapshot, Values
from harness.kernels.same_values import same_values

Rates = dict[str, np.ndarray]  # site → rate per unit


def with_running_statistics(replay: Replay, first: Snapshot, last: Snapshot) -> Rates:
    """Rates with the running statistics of norms, if training uses those of each batch; else empty."""
    modes = {
        name: False
        for name, module in replay.modules.items()
        if isinstance(module, NORMS)
        and replay.modes.get(name, module.training)
        and stored(module, "running_mean") is not None
    }
    return _rates(replay.in_modes(modes), last) if modes else {}


def with_first_buffers(replay: Replay, first: Snapshot, last: Snapshot) -> Rates:
    """Rates with the first buffers of modules that are no norms, if they have changed; else empty."""
    buffers: Values = {}
    for prefix, module in replay.modules.items():
        for name, _ in module.named_buffers(prefix, recurse=False) if not isinstance(module, NORMS) else ():
            if name in first.values and name in last.values:
                buffers[name] = first.values[name]
    changed = any(not same_values(value, last.values[name]) for name, value in buffers.items())
    return _rates(replay, last._replace(values=last.values | buffers)) if changed else {}


def _rates(replay: Replay, snapshot: Snapshot) -> Rates:
    return {site: columns["rate"] for site, columns in replay.watched(snapshot).items()}


#: Column of `Evidence.units` → what computes it.
ALTERNATIVES = {"rate_eval": with_running_statistics, "rate_buffers": with_first_buffers}
