"""The gates of a stack's members, and the neighbouring members that are counted together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from harness.activations.declared import declared_class
from harness.activations.gates import Gate
from harness.activations.lookup import lookup
from harness.config import RunSpec
from harness.kernels.numba_arguments import bounds_of
from harness.training.models import activation_of, make_activation


class Part(NamedTuple):
    """Neighbouring members whose gates have the same form, or are equal."""

    members: slice
    gate: Gate | None  # of the first of them; None: it depends on their slopes
    bounds: np.ndarray | None  # (members, 1 or 4, 1) of all


def gates_of(specs: Sequence[RunSpec], modules: Sequence[nn.Module], *, own: bool) -> list[list[Gate | None]]:
    """Return the gates of each member at each site; None if a gate can change.

    Args:
        specs: the members.
        modules: the activation module of each site, of the first member.
        own: whether members differ in activation, which their specifications then give.

    Raises:
        ValueError: the gates of a module are its own, as it declares them.
    """
    if own:
        gates = [_gate(make_activation(activation_of(spec), 1), spec.record.gate_eps) for spec in specs]
        return [gates] * len(modules)
    return [[_gate(module, spec.record.gate_eps) for spec in specs] for module in modules]


def _gate(module: nn.Module, eps: float) -> Gate | None:
    found = lookup(module)
    name = type(module).__name__
    if found is None or declared_class(type(module)) is not None:
        raise ValueError(f"{name}: a stack counts torch's activations, not those that declare their gates")
    gate = found[1](module, eps)
    if isinstance(gate.low, Tensor) and found[0] != "prelu":
        raise ValueError(f"{name}: its gates depend on its parameters")
    return None if isinstance(gate.low, Tensor) else gate


def parts_of(gates: Sequence[Gate | None], forms: Sequence[object], dtype: torch.dtype) -> list[Part]:
    """Group neighbouring members whose gates have equal forms."""
    cuts = [0, *(k for k in range(1, len(forms)) if forms[k] != forms[k - 1]), len(forms)]
    found = []
    for start, stop in pairwise(cuts):
        bounds = [bounds_of(gate, dtype) for gate in gates[start:stop] if gate is not None]
        found.append(Part(slice(start, stop), gates[start], np.stack(bounds) if bounds else None))
    return found
