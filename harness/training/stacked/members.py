"""The members of a stack: whether they fit together, their order, and their networks as in their own runs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.config import RunSpec
from harness.config.schema import Device, Dtype
from harness.graph.plan import Site
from harness.hooks.eager import EagerTaps
from harness.recording.windows import WindowAccumulator
from harness.store.folder import RunFolder
from harness.training.initialisation import initialise
from harness.training.models import activation_of, build
from harness.training.stacked.batches import CohortData
from harness.training.stacked.parameters import Parameter, stack
from harness.training.stacking import stacking_blocker, stacking_key

SLOPES = ".act.slope"  # suffix of buffers that only members with the remedy leaky_swap have


def check_members(specs: Sequence[RunSpec], folders: Sequence[RunFolder]) -> None:
    """Raise ValueError if the runs cannot be trained as one stack."""
    if not specs:
        raise ValueError("expected at least one run")
    if len({folder.path for folder in folders}) != len(specs):
        raise ValueError("expected each run once, with a folder of its own")
    if specs[0].device is Device.auto and torch.cuda.is_available():
        raise ValueError("device=auto finds a GPU here: stacks are trained on the CPU")
    for spec in specs:
        if stacking_blocker(spec):
            raise ValueError(stacking_blocker(spec))
        if stacking_key(spec) != stacking_key(specs[0]):
            raise ValueError("expected runs that share network, data, length, optimizer and recording")


def order(specs: Sequence[RunSpec]) -> list[int]:
    """Return the order in the stack: sorted by activation, otherwise as given.

    Example:
        >>> from harness.config import compose
        >>> order([compose([f"activation={name}"]) for name in ("relu", "elu", "relu", "prelu")])
        [1, 3, 0, 2]
    """
    own = [activation_of(spec) for spec in specs]
    return sorted(range(len(specs)), key=lambda k: (own[k].name, repr(own[k]), k))


def initial(specs: Sequence[RunSpec], data: CohortData) -> tuple[list[Parameter], dict[str, Tensor]]:
    """Return parameters and buffers of freshly initialised members, in the order of `specs`.

    Raises:
        ConfigError: a network cannot read the data or carry the activation.
    """
    states, names = [], dict[str, None]()
    for place, spec in enumerate(specs):
        model = build(spec, data.shape, data.classes)
        initialise(model, spec, data.first(place) if spec.init.name == "sign_flip" else None)
        states.append(model.state_dict())
        names |= dict.fromkeys(name for name, _ in model.named_parameters())
    fixed = sorted({name for state in states for name in state if name.endswith(SLOPES)})
    names |= dict.fromkeys(fixed)
    parameters = stack(states, list(names), fixed)
    buffers = {name: torch.stack([s[name] for s in states]) for name in states[0] if name not in names}
    return parameters, buffers


def sites(spec: RunSpec, data: CohortData) -> tuple[Site, ...]:
    """Return the sites of a member's network, as an ordinary Recorder finds them."""
    model = build(spec, data.shape, data.classes)
    dtype = torch.float64 if spec.dtype is Dtype.float64 else torch.float32
    windows = WindowAccumulator("stream")
    with EagerTaps(model, windows, gradients=False).attached(), torch.no_grad():
        model(torch.zeros(2, *data.shape, dtype=dtype))
    return tuple(windows.sites)
