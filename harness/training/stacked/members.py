"""The members of a stack: whether they fit together, their order, and their networks as in their own runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from harness.config import RunSpec
from harness.config.schema import Dtype, Mlp
from harness.graph.plan import Site
from harness.hooks.eager import EagerTaps
from harness.recording.windows import WindowAccumulator
from harness.store.folder import RunFolder
from harness.training.initialisation import initialise
from harness.training.models import activation_of, build
from harness.training.stacked.batches import CohortData
from harness.training.stacked.module import StackedModule
from harness.training.stacked.network import StackedMLP
from harness.training.stacked.parameters import Parameter, stack
from harness.training.stacking import stacking_blocker, stacking_key

SAMPLE = 4  # inputs by which a stack is compared with its members' own networks
SLOPES = ".act.slope"  # suffix of buffers that only members with the remedy leaky_swap have


def check_members(specs: Sequence[RunSpec], folders: Sequence[RunFolder]) -> None:
    """Raise ValueError if the runs cannot be trained as one stack."""
    if not specs:
        raise ValueError("expected at least one run")
    if len({folder.path for folder in folders}) != len(specs):
        raise ValueError("expected each run once, with a folder of its own")
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


class Beginning(NamedTuple):
    """The members before their first step.

    Attributes:
        parameters: the stack's parameters.
        buffers: the stack's buffers, (K, ...).
        sample: some inputs of each member, (K, n, F).
        logits: what each member's own network makes of them in evaluation mode, (K, C, n).
    """

    parameters: list[Parameter]
    buffers: dict[str, Tensor]
    sample: Tensor
    logits: Tensor


def initial(specs: Sequence[RunSpec], data: CohortData) -> Beginning:
    """Return the freshly initialised members, in the order of `specs`.

    Raises:
        ConfigError: a network cannot read the data or carry the activation.
    """
    states, names = [], dict[str, None]()
    samples, logits = [], []
    for place, spec in enumerate(specs):
        model = build(spec, data.shape, data.classes)
        initialise(model, spec, data.first(place).cpu() if spec.init.name == "sign_flip" else None)
        states.append({name: tensor.to(data.device) for name, tensor in model.state_dict().items()})
        names |= dict.fromkeys(name for name, _ in model.named_parameters())
        samples.append(data.first(place)[:SAMPLE])
        logits.append(model.eval()(samples[-1].cpu()).T)
    fixed = sorted({name for state in states for name in state if name.endswith(SLOPES)})
    names |= dict.fromkeys(fixed)
    parameters = stack(states, list(names), fixed)
    buffers = {name: torch.stack([s[name] for s in states]) for name in states[0] if name not in names}
    sample = torch.stack(samples).flatten(2)
    return Beginning(parameters, buffers, sample, torch.stack(logits).to(data.device))


def network_of(
    specs: Sequence[RunSpec],
    data: CohortData,
    parameters: Sequence[Parameter],
    buffers: Mapping[str, Tensor],
    calls: Sequence[tuple[str, int]],
) -> StackedMLP | StackedModule:
    """Return the network of a stack.

    Args:
        specs: the members, in the order of the stack.
        data: their data.
        parameters: parameters of the stack.
        buffers: buffers of the stack.
        calls: the calls of activations, as in `Observed`.
    """
    config = specs[0].model
    if isinstance(config, Mlp):
        return StackedMLP(config, [activation_of(spec) for spec in specs], parameters, buffers)
    model = build(specs[0], data.shape, data.classes).to(data.device)
    return StackedModule(model, calls, parameters, buffers, data.shape)


class Observed(NamedTuple):
    """What a Recorder observes in a member's network.

    Attributes:
        sites: the sites.
        calls: (name of the module, place of its site in `sites`) of each call in a forward pass, in order.
        modules: the activation module of each site, with its name.
    """

    sites: tuple[Site, ...]
    calls: tuple[tuple[str, int], ...]
    modules: tuple[tuple[str, nn.Module], ...]


def observed(spec: RunSpec, shape: tuple[int, ...], classes: int) -> Observed:
    """Return what an ordinary Recorder observes in a member's network, with inputs of a shape."""
    model = build(spec, shape, classes)
    dtype = torch.float64 if spec.dtype is Dtype.float64 else torch.float32
    names = {module: name for name, module in model.named_modules()}
    windows, calls = WindowAccumulator("stream"), list[tuple[str, str]]()
    taps = EagerTaps(model, windows, gradients=False)
    taps.counter.on_call = lambda caller, site, *_: calls.append((names.get(caller.key, ""), site))
    with taps.attached(), torch.no_grad():
        model(torch.zeros(2, *shape, dtype=dtype))
        hidden = taps.unobserved(taps.called)
    if hidden:
        raise ValueError(f"{hidden[0].name}: {hidden[0].reason or 'it is not called'}")
    places = {site.name: place for place, site in enumerate(windows.sites)}
    called = {places[site]: module for module, site in calls}
    modules = tuple((called[place], model.get_submodule(called[place])) for place in range(len(places)))
    return Observed(tuple(windows.sites), tuple((m, places[site]) for m, site in calls), modules)
