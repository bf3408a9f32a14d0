"""Producers: the parameters that make units, and the layers they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

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
        part: whether only a part of the parameter is meant, as the weights of one expert are.
        gathered: whether the inputs choose the part, as each token chooses its expert.
        columns: whether a matrix is turned from how it is used first: W.T in the decoder of an autoencoder
            whose encoder multiplies by W.
    """

    name: str
    module: nn.Module
    parameter: str
    whole: bool
    part: bool = False
    gathered: bool = False
    columns: bool = False


class Producers:
    """Finds the owner of a parameter.

    Args:
        model: the root module; its current parameters are looked up.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._found: dict[int, Producer] = {}
        self._alive: list[Tensor] = []  # keeps ids from being reused
        self._names = {module: name for name, module in model.named_modules()}
        for module in self._names:
            self.look_at(module)

    def look_at(self, module: nn.Module) -> None:
        """Look up a module's current parameters: sharded ones are replaced when its forward begins."""
        for key, tensor in module._parameters.items():  # also what functional_call substitutes
            if tensor is not None and id(tensor) not in self._found:
                self._found[id(tensor)] = self._owner(module, key)
                self._alive.append(tensor)

    def _owner(self, module: nn.Module, key: str) -> Producer:
        if module not in self._names:  # it has come since
            self._names = {module: name for name, module in self._model.named_modules()}
        name = self._names.get(module, "")
        layer, parametrized, _ = name.partition("parametrizations")
        if parametrized:  # the layer's weight is computed from it
            layer = layer.removesuffix(".")
            return Producer(plain_name(layer, self._model), self._model.get_submodule(layer), "", True)
        return producer(plain_name(name, self._model), module, key)

    def of(self, tensor: Tensor) -> Producer | None:
        """The producer for a parameter; None for any other tensor."""
        return self._found.get(id(tensor))


def producer(name: str, module: nn.Module, key: str) -> Producer:
    """The producer for one parameter of a module."""
    matrices = [k for k, p in module._parameters.items() if p is not None and p.ndim > 1]
    if name and (isinstance(module, LAYERS) or len(matrices) <= 1):
        return Producer(name, module, "", True)
    return Producer(f"{name}.{key}" if name else key, module, key, False)


def turned(weights: Producer) -> Producer:
    """The producer for the transposed weights: their columns make the units."""
    return replace(weights, columns=not weights.columns)


def part_of(whole: Producer, name: str, args: Sequence[Any], place: int) -> Producer:
    """The producer for a part of weights: one expert's, or one of several matrices that lie in one.

    The first rows or columns keep the name: a slimmable layer uses more or fewer of them.

    Args:
        whole: the producer of them all.
        name: name of the function that selects the part.
        args: its arguments.
        place: place of the part among its results.
    """
    gathered = name in ("index_select", "take_along_dim")
    if name == "__getitem__":
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        words = [word for one in index if (word := _shown(one))]
        gathered = any(isinstance(one, Tensor) and one.ndim > 0 for one in index)
    elif name in ("select", "narrow"):
        words = [str(one) for one in args[2:3] if name == "select" or one]
    else:
        words = [str(place)] if place or name == "unbind" else []
    if not words and not gathered:
        return whole
    label = "…" if gathered else ", ".join(words)
    gathered |= whole.gathered
    return replace(whole, name=f"{whole.name}[{label}]", whole=False, part=True, gathered=gathered)


def _shown(index: Any) -> str:
    """An index as text; "" if it begins at the start."""
    if isinstance(index, slice):
        stop = "" if index.stop is None else index.stop
        return f"{index.start}:{stop}" if index.start else ""
    if isinstance(index, Tensor):
        return str(index.item()) if index.ndim == 0 else "…"
    return str(index) if isinstance(index, int) else ""
