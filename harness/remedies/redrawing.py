"""Redrawing: layers with silent units get new incoming weights; their outgoing weights stay.

Our own method. ReDo sets the outgoing weights of a new unit to 0, so as not to disturb the units that work.
If most units are silent, there is little to disturb, and all weights between new units would be 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from harness.graph.unit_connections import UnitConnections
from harness.remedies.events import RemedyEvent
from harness.remedies.initializers import DrawRows
from harness.remedies.optimizer_state import OptimizerStateView
from harness.remedies.surgery import reset_incoming
from harness.remedies.wiring import parameter

KIND = "redraw"
MOSTLY = 0.5  # share of silent units from which on all units of a layer are redrawn


def redraw_layers(
    connections: Sequence[UnitConnections],
    magnitudes: Mapping[str, Tensor],
    state: OptimizerStateView,
    draw: DrawRows,
) -> list[RemedyEvent]:
    """Redraw the silent units of some sites, and all units of a layer if at least half are silent.

    Args:
        connections: connections of the sites.
        magnitudes: site → (units,), the sum of |activation| over a batch.
        state: the optimizer's state, whose moments of the new weights become 0.
        draw: draws new weights.
    """
    events = []
    for one in connections:
        silent = (magnitudes[one.site] == 0).cpu()
        if not silent.any():
            continue
        whole = float(silent.float().mean()) >= MOSTLY
        units = torch.arange(one.size) if whole else silent.nonzero().squeeze(1)
        rows = draw(one.name, parameter(one.layer, "weight"), units)
        reset_incoming(one, units.to(parameter(one.layer, "weight").device), rows, state, restart=True)
        events.append(RemedyEvent(KIND, one.site, len(units), f"{int(silent.sum())} were silent"))
    return events
