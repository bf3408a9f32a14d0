"""Replay: runs a model again on inputs of its training, with earlier or current parameters, layer by layer.

`initial_state`, `layer_inputs` and `counterfactual` read a trained model in such passes, which leave it
unchanged.
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
from harness.kernels import unit_statistic
from harness.kernels.layout import as_units
from harness.recording.attributes import preserve_tensors
from harness.recording.batches import modes_kept, preserve_state
from harness.recording.windows import WindowAccumulator

NORMS = (*CHANNEL_AXIS, nn.LayerNorm, nn.RMSNorm)


class Layer(NamedTuple):
    """What makes a site's pre-activation: a layer, and the layer before it if that layer is a norm.

    Attributes:
        names: names of its modules, in the order of computation.
        gate: gate of the site; None if only the observed inputs determine it.
        source: what the first module receives: the model's "inputs", or what a "norm" or "layers" made;
            "inputs, through layers" if the model's inputs are large or off centre, and "inputs, joined" if
            some of them were concatenated to what layers made.
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
        modes: module name → training mode; other modules keep theirs.
        options: options of the taps that observed its training (gate_eps, per_call, axis).
        by_parts: whether inputs are those of submodules called on their own (`Entrances`).

    Attributes:
        graph: whether passes record a graph, as a forward needs that sets hooks on its tensors.
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
        self.graph = False

    def prepare(self, snapshot: Snapshot) -> None:
        """Find out with one input whether passes need a graph."""
        one = snapshot._replace(inputs=snapshot.inputs[:1])
        for self.graph in (False, True):
            try:
                with self.observing():
                    self.run(one)
            except Exception:
                continue
            return
        self.graph = False  # it cannot be run at all, which the first pass says

    def in_modes(self, modes: Mapping[str, bool]) -> Replay:
        """The same replay with some modules in other modes."""
        other = Replay(self.model, {**self.modes, **modes}, self.options, by_parts=self.by_parts)
        other.graph = self.graph
        return other

    def taps(self, windows: WindowAccumulator, *, gradients: bool = False) -> EagerTaps:
        """Taps that observe the replayed passes, with the same sites as in training."""
        return EagerTaps(self.model, windows, observe="all", gradients=gradients, **self.options)

    def watched(
        self,
        snapshot: Snapshot,
        layers: Mapping[str, Layer] | None = None,
        on_layer: OnLayer = lambda *_: None,
    ) -> dict[str, dict[str, np.ndarray]]:
        """Site → its census columns (n, rate, mean, std, …), from one pass over a snapshot.

        Args:
            snapshot: parameters, buffers and inputs.
            layers: layers to observe on the way, as in `observing`.
            on_layer: as in `observing`.
        """
        windows = WindowAccumulator("stream")
        taps = self.taps(windows)
        with self.observing(layers, on_layer), taps.attached():
            self.run(snapshot)
        columns = windows.close(0, [], None)
        rows = {site.name: columns["site"] == site.name for site in windows.sites}
        return {site: {name: c[at] for name, c in columns.items()} for site, at in rows.items()}

    def run(self, snapshot: Snapshot) -> None:
        """Run one forward for each of a snapshot's inputs; call inside `observing`."""
        for _ in self.outputs(snapshot):
            pass

    def outputs(
        self,
        snapshot: Snapshot,
        trained: Collection[str] = (),
        leaves: Values | None = None,
        then: Callable[[Any], None] = lambda _: None,
    ) -> Iterator[Any]:
        """The output for each of a snapshot's inputs; call inside `observing`.

        Args:
            snapshot: parameters, buffers and inputs.
            trained: names of the parameters that require a gradient, if one is recorded.
            leaves: receives the parameters and buffers of the running pass, by name.
            then: receives each output while the model still has these values: a backward pass recomputes
                checkpointed parts, which would otherwise use the model's own values.
        """
        model = _Ending(self._called, then)
        device = next((value.device for value in snapshot.values.values()), None)
        if self.graph:
            trained = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        for inputs in snapshot.inputs:
            args, kwargs = map_tensors(lambda tensor: tensor.to(device), inputs)
            values = {
                k: v.clone().requires_grad_(k in trained and v.is_floating_point())
                for k, v in snapshot.values.items()
            }
            if leaves is not None:
                leaves.update(values)
            named = {self._prefix + name: value for name, value in values.items()}
            with preserve_tensors(self.model), torch.set_grad_enabled(self.graph or torch.is_grad_enabled()):
                output = functional_call(model, named, args, kwargs)
            yield output

    @contextmanager
    def observing(
        self, layers: Mapping[str, Layer] | None = None, on_layer: OnLayer = lambda *_: None
    ) -> Iterator[None]:
        """Context manager: call `on_layer` after every layer of every pass; it may call the layer itself.

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

        with modes_kept(self.model):
            for name, module in self.modules.items():
                module.training = self.modes.get(name, module.training)
                if isinstance(module, nn.modules.dropout._DropoutNd):
                    module.training &= module.p >= 1  # which lets nothing through, and draws nothing
            with ExitStack() as hooks, torch.no_grad(), preserve_state(self.model), warnings.catch_warnings():
                for name in {layer.names[0] for layer in layers.values()}:
                    hooks.enter_context(self.modules[name].register_forward_pre_hook(partial(before, name)))
                for name in by_last:
                    hooks.enter_context(self.modules[name].register_forward_hook(partial(after, name)))
                warnings.filterwarnings("ignore", "None of the inputs have requires_grad")  # by checkpoints
                yield

    def is_trained(self, name: str) -> bool:
        """Whether a module has a parameter that requires a gradient, or a single parameter does."""
        module = self.modules.get(name)
        parameters = [self.model.get_parameter(name)] if module is None else module.parameters()
        return any(parameter.requires_grad for parameter in parameters)

    def normed(self, layer: Layer) -> str:
        """What the norm behind a layer removes: "scale", or "offset and scale"; "" without a norm.

        Batch statistics remove both; statistics over one input's units keep differences between units.
        """
        name = layer.names[-1]
        norm = self.modules[name]
        if not isinstance(norm, NORMS):
            return ""
        if isinstance(norm, nn.GroupNorm | nn.LayerNorm | nn.RMSNorm):
            return "scale"
        own = self.modes.get(name, norm.training) or getattr(norm, "running_mean", None) is None
        return "offset and scale" if own else ""

    def pre_activation(self, layer: Layer, values: Mapping[str, Values], args: Any) -> tuple[Tensor, int]:
        """The output of a layer for its arguments, and its unit axis.

        Args:
            layer: the layer.
            values: name of a module → its parameters and buffers by their names in it.
            args: arguments of its first module.
        """
        for name in layer.names:
            args = (functional_call(self.modules[name], dict(values[name]), args),)
        axis = layer_axis(self.modules[layer.names[-1]], args[0].ndim)
        return args[0], -1 if axis is None else axis

    def named_values(self, name: str) -> dict[str, str]:
        """A module's parameters and buffers: name in it → name in the model."""
        module = self.modules.get(name)
        if module is None:  # a parameter that is not in a module
            return {name: name}
        named = (*module.named_parameters(), *module.named_buffers())
        return {short: f"{name}.{short}" if name else short for short, _ in named}


class _Ending(nn.Module):
    """A model that passes its output to a function."""

    def __init__(self, model: nn.Module, then: Callable[[Any], None]) -> None:
        super().__init__()
        self.model, self.then = model, then

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = self.model(*args, **kwargs)
        self.then(output)
        return output


def unit_rows(x: Tensor, axes: int | tuple[int, ...]) -> Tensor:
    """A tensor with its units on these axes, as inputs and positions × units."""
    return unit_statistic.unit_rows(as_units(x.detach(), axes))
