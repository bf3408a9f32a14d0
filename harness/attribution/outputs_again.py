"""Outputs again: whether the network, run again, gives the outputs that the training saw.

A replay runs the forward of today. If it gives the latest outputs, but not the first ones, the forward itself
has changed in between (a hook, a patched method, a flag), and the replay does not show the start.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from harness.attribution.loss_graph import first_values, outputs_of
from harness.attribution.replay import Replay
from harness.attribution.snapshots import INPUTS, OUTPUTS, Snapshot, Snapshots

SAME = 1e-3  # relative difference at which two passes are the same
LATEST = 3  # steps whose outputs are compared with those of the latest inputs
UNKNOWN = float("nan")


def outputs_again(replay: Replay, snapshots: Snapshots, sizes: np.ndarray) -> dict[str, float]:
    """How far the outputs of a replay are from those of the training.

    Args:
        replay: replay of the model.
        snapshots: copies made while it trained.
        sizes: rms of the outputs in every step.

    Returns:
        again_first: the relative difference of the first outputs; again_last: how much larger or smaller the
        latest are. NaN if unknown, as in a network that draws numbers; nothing if no output was kept.
    """
    if not snapshots.first_outputs:
        return {}
    first, last = snapshots.first(), snapshots.last()
    first, last = first._replace(inputs=first.inputs[:1]), last._replace(inputs=last.inputs[-1:])
    again, latest = _outputs(replay, first), _outputs(replay, last)
    difference = UNKNOWN if _draws(replay, first, again) else _difference(again, snapshots.first_outputs)
    known = sizes[-LATEST:][np.isfinite(sizes[-LATEST:])]
    ratio = float(_flat(latest).square().mean().sqrt() / np.median(known)) if latest and len(known) else 0.0
    return {"again_first": difference, "again_last": max(ratio, 1 / ratio) if ratio > 0 else UNKNOWN}


def _draws(replay: Replay, first: Snapshot, again: Sequence[Tensor]) -> bool:
    """Whether passes differ by chance, or by dropout, which a replay leaves out."""
    for name, module in replay.modules.items():
        dropout = isinstance(module, nn.modules.dropout._DropoutNd) and 0 < module.p < 1
        if dropout and replay.modes.get(name, module.training):
            return True
    return not _difference(_outputs(replay, first), again) < SAME


def _outputs(replay: Replay, snapshot: Snapshot) -> list[Tensor]:
    trained = [name for name, parameter in replay.model.named_parameters() if parameter.requires_grad]
    with replay.observing(), torch.enable_grad():
        given = [outputs_of(output) for output in replay.outputs(snapshot, trained)]
    return [first_values(out[:INPUTS], OUTPUTS) for outputs in given for out in outputs if out.ndim]


def _difference(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    if not a or [one.shape for one in a] != [one.shape for one in b]:
        return UNKNOWN
    return float((_flat(a) - _flat(b)).norm() / _flat(b).norm().clamp_min(1e-12))


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().double().flatten().cpu() for tensor in tensors])
