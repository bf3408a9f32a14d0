"""Replay: a model run again over inputs of its training, with parameters of then or now, layer by layer.

`initial_state`, `layer_inputs` and `counterfactual` read a trained model in such passes, which leave it as it
was.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from harness.activations.gates import Gate
from harness.attribution.entrances import Parts
from harness.attribution.model_inputs import map_tensors
from harness.attribution.shapley import Coalition
from harness.attribution.snapshots import Snapshot, Values
from harness.graph.layers import CHANNEL_AXIS, layer_axis
from harness.hooks.eager import EagerTaps
from harness.kernels.layout import as_units
from harness.recording.batches import preserve_state
from harness.recording.windows import WindowAccumulator

NORMS = (*CHANNEL_AXIS, nn.LayerNorm, nn.RMSNorm)


class Layer(NamedTuple):
    """What makes a site's pre-activation: a layer, and the one before it where the first is a norm.

    Attributes:
        names: of its modules, in the order of computation.
        gate: of the site that it feeds; None where only the inputs that were seen tell it.
        source: what the first of them is handed: the model's "inputs", what a "norm" or what "layers" made;
            "inputs, through layers" where the model's inputs are large or off centre.
    """

    names: tuple[str, ...]
    gate: Gate | None
    source: str = "inputs"


Rates = dict[Coalition, np.ndarray]  # coalition → rate per unit
OnLayer = Callable[[str, Layer, tuple[Any, ...]], None]  # site, layer, arguments of the layer's first module


class Replay:
    """Runs a model in the modes of its training, without dropout and without gradients.

    Args:
        model: the model.
        modes: module name → training mode; the others stay as they are.
        options: of the taps through which its training was observed (gate_eps, per_call, axis).
        by_parts: whether inputs are those of parts that are called by themselves (`Entrances`).
    """

    def __init__(
        self,
        model: nn.Module,
        modes: Mapping[str, bool],
        options: Mapping[str, Any] | None = None,
        *,
        by_parts: bool = False,
    ) -> None:
        self.model, self.modes, self.options = model, modes, dict(options or {})
        self.by_parts = by_parts
        self._called, self._prefix = (Parts(model), "model.model.") if by_parts else (model, "model.")
        self.modules = dict(model.named_modules())

    def taps(self, windows: WindowAccumulator, *, gradients: bool = False) -> EagerTaps:
        """Observation of the replayed passes, with the sites that the training's observation has."""
        return EagerTaps(self.model, windows, observe="all", gradients=gradients, **self.options)

    def watched(
        self,
        snapshot: Snapshot,
        layers: Mapping[str, Layer] | None = None,
        on_layer: OnLayer = lambda *_: None,
    ) -> dict[str, dict[str, np.ndarray]]:
        """Site → its column of a census (n, rate, mean, std, …), of one pass over a snapshot.

        Args:
            snapshot: parameters, buffers and inputs.
            layers: those whose calls are looked at on the way, as in `observing`.
            on_layer: as there.
        """
        windows = WindowAccumulator("stream")
        taps = self.taps(windows)
        with self.observing(layers, on_layer), taps.attached():
            self.run(snapshot)
        columns = windows.close(0, [], None)
        rows = {site.name: columns["site"] == site.name for site in windows.sites}
        return {site: {name: c[at] for name, c in columns.items()} for site, at in rows.items()}

    def run(self, snapshot: Snapshot) -> None:
        """One forward for each of a snapshot's inputs; inside `observing`."""
        for _ in self.outputs(snapshot):
            pass

    def outputs(
        self,
        snapshot: Snapshot,
        trained: Collection[str] = (),
        leaves: Values | None = None,
        then: Callable[[Any], None] = lambda _: None,
    ) -> Iterator[Any]:
        """The output for each of a snapshot's inputs; inside `observing`.

        Args:
            snapshot: parameters, buffers and inputs.
            trained: names of the parameters that take a gradient where one is recorded.
            leaves: receives the parameters and buffers of the running pass, by name.
            then: takes each output while the model has these values: what is checkpointed runs again in a
                backward pass, and would take the model's own.
        """
        model = _Ending(self._called, then)
        device = next((value.device for value in snapshot.values.values()), None)
        for inputs in snapshot.inputs:
            args, kwargs = map_tensors(lambda tensor: tensor.to(device), inputs)
            values = {
                k: v.clone().requires_grad_(k in trained and v.is_floating_point())
                for k, v in snapshot.values.items()
            }
            if leaves is not None:
                leaves.update(values)
            named = {self._prefix + name: value for name, value in values.items()}
            yield functional_call(model, named, args, kwargs)

    @contextmanager
    def observing(
        self, layers: Mapping[str, Layer] | None = None, on_layer: OnLayer = lambda *_: None
    ) -> Iterator[None]:
        """Have `on_layer` called after every layer of every pass in the block; it may call the layer itself.

        Args:
            layers: site name → what makes its pre-activation; None: nothing is called.
            on_layer: called with site, layer and the layer's arguments.
        """
        layers = layers or {}
        by_last: dict[str, list[str]] = {}
        for site, layer in layers.items():
            by_last.setdefault(layer.names[-1], []).append(site)
        arguments: dict[str, tuple[Any, ...]] = {}
        busy = False

        def before(name: str, _: nn.Module, args: tuple[Any, ...]) -> None:
            if args and not busy:
                arguments[name] = args

        def after(name: str, *_: Any) -> None:
            nonlocal busy
            if busy:
                return
            busy = True
            try:
                for site in by_last[name]:
                    if layers[site].names[0] in arguments:
                        on_layer(site, layers[site], arguments[layers[site].names[0]])
            finally:
                busy = False

        modes = [(module, module.training) for module in self.modules.values()]
        try:
            for name, module in self.modules.items():
                module.training = self.modes.get(name, module.training)
                if isinstance(module, nn.modules.dropout._DropoutNd):
                    module.training = False
            with ExitStack() as hooks, torch.no_grad(), preserve_state(self.model), warnings.catch_warnings():
                for name in {layer.names[0] for layer in layers.values()}:
                    hooks.enter_context(self.modules[name].register_forward_pre_hook(partial(before, name)))
                for name in by_last:
                    hooks.enter_context(self.modules[name].register_forward_hook(partial(after, name)))
                warnings.filterwarnings("ignore", "None of the inputs have requires_grad")  # a checkpoint's
                yield
        finally:
            for module, mode in modes:
                module.training = mode

    def is_trained(self, name: str) -> bool:
        """Whether a module has a parameter that takes a gradient, or a parameter by itself does."""
        module = self.modules.get(name)
        parameters = [self.model.get_parameter(name)] if module is None else module.parameters()
        return any(parameter.requires_grad for parameter in parameters)

    def normed(self, layer: Layer) -> str:
        """What the norm behind a layer takes from its inputs: "scale", or "offset and scale"; "" without one.

        The statistics of a batch take both; those of one input's units leave what differs between units.
        """
        name = layer.names[-1]
        norm = self.modules[name]
        if len(layer.names) < 2 or not isinstance(norm, NORMS):
            return ""
        if isinstance(norm, nn.GroupNorm | nn.LayerNorm | nn.RMSNorm):
            return "scale"
        own = self.modes.get(name, norm.training) or getattr(norm, "running_mean", None) is None
        return "offset and scale" if own else ""

    def pre_activation(self, layer: Layer, values: Mapping[str, Values], args: Any) -> tuple[Tensor, int]:
        """What a layer makes of its arguments, and its unit axis.

        Args:
            layer: the layer.
            values: name of a module → its parameters and buffers by their names in it.
            args: of its first module.
        """
        for name in layer.names:
            args = (functional_call(self.modules[name], dict(values[name]), args),)
        axis = layer_axis(self.modules[layer.names[-1]], args[0].ndim)
        return args[0], -1 if axis is None else axis

    def named_values(self, name: str) -> dict[str, str]:
        """Of a module's parameters and buffers: name in it → name in the model."""
        module = self.modules.get(name)
        if module is None:  # a parameter that stands by itself
            return {name: name}
        named = (*module.named_parameters(), *module.named_buffers())
        return {short: f"{name}.{short}" if name else short for short, _ in named}


class _Ending(nn.Module):
    """A model, and what is done with its output."""

    def __init__(self, model: nn.Module, then: Callable[[Any], None]) -> None:
        super().__init__()
        self.model, self.then = model, then

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = self.model(*args, **kwargs)
        self.then(output)
        return output


def unit_rows(x: Tensor, axes: int | tuple[int, ...]) -> Tensor:
    """Inputs and positions × units, of a tensor with its units on these axes."""
    units = as_units(x.detach(), axes)
    return units if units.ndim == 2 else units.transpose(1, 2).reshape(-1, units.shape[1])
