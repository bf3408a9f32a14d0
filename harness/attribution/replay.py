"""Passes: a model run again over inputs of its training, with parameters of then or now, watched by layer.

What is asked of a trained model (`birth`, `counterfactual`) is asked in such passes. They leave the model
as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.func import functional_call

from harness.activations.table import Gate
from harness.attribution.snapshots import Inputs, Values, on
from harness.hooks.sites import CHANNEL_AXIS

NORMS = (*CHANNEL_AXIS, nn.LayerNorm, nn.RMSNorm)


class Moment(NamedTuple):
    """Parameters and buffers by name, and inputs, at one time."""

    values: Values
    inputs: list[Inputs]


class Layer(NamedTuple):
    """What makes a site's pre-activation: a layer, and the one before it where the first is a norm.

    Attributes:
        names: of its modules, in the order of computation.
        gate: of the site that it feeds.
    """

    names: tuple[str, ...]
    gate: Gate


Look = Callable[[str, Layer, tuple[Any, ...]], None]  # site, layer, what the layer's first module is handed


class Passes:
    """Runs a model in the modes of its training, without dropout and without gradients.

    Args:
        model: the model.
        modes: module name → training mode; the others stay as they are.
    """

    def __init__(self, model: nn.Module, modes: Mapping[str, bool]) -> None:
        self.model, self.modes = model, modes
        self.modules = dict(model.named_modules())

    def over(self, moment: Moment) -> None:
        """One forward for each of a moment's inputs; inside `watched`."""
        device = next((value.device for value in moment.values.values()), None)
        for inputs in moment.inputs:
            args, kwargs = on(device, inputs)
            functional_call(self.model, {k: v.clone() for k, v in moment.values.items()}, args, kwargs)

    @contextmanager
    def watched(self, layers: Mapping[str, Layer], look: Look) -> Iterator[None]:
        """Have `look` called after every layer of every pass in the block; it may call the layer itself.

        Args:
            layers: site name → what makes its pre-activation.
            look: called with site, layer and the layer's inputs.
        """
        by_last: dict[str, list[str]] = {}
        for site, layer in layers.items():
            by_last.setdefault(layer.names[-1], []).append(site)
        inputs: dict[str, tuple[Any, ...]] = {}
        looking = False

        def before(name: str, _: nn.Module, args: tuple[Any, ...]) -> None:
            if not looking:
                inputs[name] = args

        def after(name: str, *_: Any) -> None:
            nonlocal looking
            if looking:
                return
            looking = True
            try:
                for site in by_last[name]:
                    if layers[site].names[0] in inputs:
                        look(site, layers[site], inputs[layers[site].names[0]])
            finally:
                looking = False

        handles = []
        modes = [(module, module.training) for module in self.modules.values()]
        try:
            for name, module in self.modules.items():
                module.training = self.modes.get(name, module.training)
                if isinstance(module, nn.modules.dropout._DropoutNd):
                    module.training = False
            for name in {layer.names[0] for layer in layers.values()}:
                handles.append(self.modules[name].register_forward_pre_hook(partial(before, name)))
            for name in by_last:
                handles.append(self.modules[name].register_forward_hook(partial(after, name)))
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                yield
        finally:
            for handle in handles:
                handle.remove()
            for module, mode in modes:
                module.training = mode
