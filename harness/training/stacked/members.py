"""Build the network of every member as in its own run, and stack them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.config import RunSpec
from harness.config.schema import Dtype
from harness.graph.plan import Site
from harness.hooks.eager import EagerTaps
from harness.recording.windows import WindowAccumulator
from harness.training.initialisation import initialise
from harness.training.models import activation_of, build
from harness.training.stacked.batches import CohortData
from harness.training.stacked.parameters import Parameter, stack

SLOPES = ".act.slope"  # suffix of buffers that only members with the remedy leaky_swap have


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
