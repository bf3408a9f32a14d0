"""Producers: the parameters that make units, and the layers they belong to."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from harness.graph.layers import LAYERS
from harness.graph.plan import plain_name


@dataclass(frozen=True, slots=True)
class Producer:
    """Weights with one row per unit.

    Attributes:
        name: name of the layer, or of the parameter if its module owns several weights.
        module: the module that owns them.
        parameter: the parameter's own name in the module; "" if the whole module is meant.
        whole: whether the module is one layer, so that all its parameters belong to these units.
    """

    name: str
    module: nn.Module
    parameter: str
    whole: bool


class Producers:
    """Finds the owner of a parameter.

    Args:
        model: the root module; its current parameters are looked up.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._found: dict[int, Producer] = {}
        self._alive: list[Tensor] = []  # keeps ids from being reused
        self._names: dict[nn.Module, str] = {}
        for name, module in model.named_modules():
            self._names[module] = name
            self.look_at(module)

    def look_at(self, module: nn.Module) -> None:
        """Look up a module's current parameters: sharded ones are replaced when its forward begins."""
        for key, tensor in module._parameters.items():  # also what functional_call substitutes
            if tensor is not None and id(tensor) not in self._found:
                self._found[id(tensor)] = self._owner(module, key)
                self._alive.append(tensor)

    def _owner(self, module: nn.Module, key: str) -> Producer:
        name = self._names.get(module, "")
        layer, parametrized, _ = name.partition("parametrizations")
        if parametrized:  # the layer's weight is computed from it
            layer = layer.removesuffix(".")
            return Producer(plain_name(layer), self._model.get_submodule(layer), "", True)
        return producer(plain_name(name), module, key)

    def of(self, tensor: Tensor) -> Producer | None:
        """The producer for a parameter; None for any other tensor."""
        return self._found.get(id(tensor))


def producer(name: str, module: nn.Module, key: str) -> Producer:
    """The producer for one parameter of a module."""
    matrices = [k for k, p in module._parameters.items() if p is not None and p.ndim > 1]
    if name and (isinstance(module, LAYERS) or len(matrices) <= 1):
        return Producer(name, module, "", True)
    return Producer(f"{name}.{key}" if name else key, module, key, False)
