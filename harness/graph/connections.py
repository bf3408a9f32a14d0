"""Connections: which layer makes the units of each activation, and which layers read them.

They are recorded by following the tensors of a forward pass, whatever the order of the modules. Only
functions that pass on each unit separately, and a zero as a zero, are followed (views, pooling, dropout). If
anything else reads a unit, the reason why the unit cannot be replaced is recorded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from harness.activations.stored import stored
from harness.graph import operations as ops
from harness.graph import units
from harness.graph.operations import tensors_in
from harness.graph.origin import Origin
from harness.graph.plan import qualified_names
from harness.graph.producers import Producer
from harness.graph.provenance import TensorProvenance
from harness.graph.unit_connections import Consumer, UnitConnections

PLAIN_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
NO_LAYER = (
    "no nn.Linear or plain convolution with its own weights makes its pre-activation (a residual sum does, "
    "x @ w, or a transposed convolution, say)"
)


Operand = tuple[Tensor, Origin, UnitConnections]
OnOutput = Callable[[UnitConnections, Tensor, Tensor], None]  # connections, output, unit indices


class ConnectionProvenance(TensorProvenance):
    """Tensor → Origin, and the connections of the units that are followed.

    Args:
        model: the model whose layers are followed.
        on_output: receives the output of each activation that is followed.

    Attributes:
        found: in order of the layers' calls; without a site if no activation is called on the units.
        refused: site → why its units are not those of a single layer.
    """

    def __init__(self, model: nn.Module, on_output: OnOutput | None = None) -> None:
        super().__init__(model)
        self._on_output = on_output
        self._names = qualified_names(model)
        self._owners: dict[int, nn.Module] = {}
        self._tied: set[int] = set()
        for module in self._names:
            for value in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                if id(value) in self._owners:
                    self._tied.add(id(value))
                self._owners[id(value)] = module
        self._calls: Counter[nn.Module | None] = Counter()
        self._sites: set[str] = set()
        self._called: tuple[str, str] | None = None
        self._busy = False
        self.found: list[UnitConnections] = []
        self.refused: dict[str, str] = {}

    def call(self, site: str, activation: str) -> None:
        """Announce that the activation of a site is about to be called."""
        self._called = (site, activation) if site not in self._sites else None
        self._sites.add(site)

    def activated(self, z: Origin | Producer | None, shape: torch.Size, out: Any) -> None:
        super().activated(z, shape, out)
        called, self._called = self._called, None
        origin = self.get(out) if isinstance(out, Tensor) else None
        kept = self._activated(z if isinstance(z, Origin) else None, called, shape, out)
        if origin is not None and not kept:
            self.put(out, origin._replace(connections=None))

    def follow(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> None:
        if self._busy:
            return
        name, values = ops.function_name(function), [*args, *kwargs.values()]
        operands = [
            (t, o, o.connections)
            for t in tensors_in(values)
            if (o := self.get(t)) is not None and o.connections is not None
        ]
        made = None
        try:
            super().follow(function, args, kwargs, out)
        finally:  # a failure there must not skip this
            if name == "linear" or name in ops.PLAIN_CONVOLUTIONS:
                made = self._layer(name, operands, args, kwargs)
            elif operands and (name == "__setitem__" or any(True for _ in tensors_in([out]))):
                made = self._handed_on(name, operands, args, kwargs, out)
            known = {id(tensor): connections for tensor, _, connections in operands}
            for tensor in tensors_in([out]):
                origin = self.get(tensor)
                if origin is not None:  # a tensor changed in place keeps its own
                    self.put(tensor, origin._replace(connections=made or known.get(id(tensor))))

    def finish(self, output: Any) -> None:
        """End the forward pass: units that are part of its output cannot be replaced unnoticed."""
        leaves = _pytree.tree_leaves(output)
        inner = [list(vars(leaf).values()) for leaf in leaves if hasattr(leaf, "__dict__")]
        for leaf in tensors_in([inner, leaves]):
            origin = self.get(leaf)
            if origin is not None and origin.connections is not None:
                origin.connections.refuse("it is part of the model's output")
        for one in self.found:
            one.repeated = max(self._calls[one.layer], self._calls[one.norm]) > 1
            if one.repeated or any(self._calls[consumer.layer] > 1 for consumer in one.consumers):
                one.refuse("a layer before or behind it is called more than once in a forward pass")
            if not one.consumers:
                one.refuse("no layer that reads it was found")

    # --- activations --------------------------------------------------------------------------------

    def _activated(
        self, z: Origin | None, called: tuple[str, str] | None, shape: torch.Size, out: Any
    ) -> bool:
        """Whether the output still has these units."""
        if z is None or z.connections is None:
            if called is not None:
                self.refused[called[0]] = NO_LAYER
            return False
        connections = z.connections
        if called is None:
            connections.refuse("its activation is called more than once in a forward pass")
            return False
        if z.activated or connections.site:
            self.refused[called[0]] = "its input is that of another activation too, or its output"
            connections.refuse("another activation reads the same units")
            return False
        connections.site, connections.activation = called
        if isinstance(out, Tensor) and not out.numel():
            connections.refuse("no input reached it")
        if not isinstance(out, Tensor) or out.shape != shape or z.units is None:
            connections.refuse(f"{called[1]} gives more outputs than it has units")
            return False
        if self._on_output is not None:
            self._busy = True  # our own computations are not part of the model
            self._on_output(connections, out, z.units)
            self._busy = False
        return True

    # --- layers -------------------------------------------------------------------------------------

    def _layer(
        self, name: str, operands: Sequence[Operand], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> UnitConnections | None:
        """Record a Linear or a convolution, which reads units and makes others."""
        bound = dict(zip(("input", "weight", "bias"), args, strict=False)) | dict(kwargs)
        owner = self._owners.get(id(bound["weight"]))
        tied = any(id(bound.get(part)) in self._tied for part in ("weight", "bias"))
        own = name == "linear" and owner is not None and _is_linear(owner, bound)  # a custom class
        layer = owner if own or isinstance(owner, PLAIN_LAYERS) else None
        if layer is not None:
            self._calls[layer] += 1
        for operand in operands:
            if operand[0] is bound["input"]:
                self._read(name, layer, operand, tied=tied)
            else:  # a weight computed from units
                operand[2].refuse(_not_followed(name))
        if layer is None:
            return None
        made = UnitConnections(self._names[layer], layer)
        self.found.append(made)
        if tied:
            made.refuse("it shares parameters with another layer")
        if _is_frozen(layer):
            made.refuse("the layer before it is frozen: nothing would train new weights")
        if isinstance(bound.get("bias"), Tensor) and id(bound["bias"]) not in self._owners:
            made.refuse("its bias is no parameter of its own: it is computed (pruned, say)")
        return made

    def _read(self, name: str, layer: nn.Module | None, operand: Operand, *, tied: bool) -> None:
        x, origin, connections = operand
        axis = -1 if name == "linear" else -ops.PLAIN_CONVOLUTIONS[name] - 1
        columns = None if origin.units is None else units.along(origin.units, x.shape, axis)
        if not origin.activated:
            connections.refuse("its pre-activation is read by another layer")
        elif layer is None or stored(layer, "groups", 1) != 1 or columns is None:
            connections.refuse("the layer that reads it is not a plain Linear or convolution")
        else:
            connections.consumers.append(Consumer(self._names[layer], layer, columns.to(x.device)))
            if _is_frozen(layer):
                connections.refuse("the layer that reads it is frozen: the weights of new units would stay 0")
        if tied and layer is not None:
            connections.refuse("the layer that reads it shares parameters with another")

    # --- everything else ----------------------------------------------------------------------------

    def _handed_on(
        self, name: str, operands: Sequence[Operand], args: Sequence[Any], kwargs: Mapping[str, Any], out: Any
    ) -> UnitConnections | None:
        """The connections of the output, if it is known to have the units of an operand unchanged."""
        values = [*args, *kwargs.values()]
        x, origin, connections = operands[0]
        if len(operands) == 1 and values[0] is x and origin.units is not None:
            if name in ops.NORMS and not origin.activated:
                kept = self._follows_norm(name, x, origin.units, connections, values)
            else:
                kept = ops.keeps_units(name, x, units.varying(origin.units))
                if name in ops.KEEP_ZEROS:
                    kept = origin.activated and _is_over_positions(args, kwargs, x, origin.units)
            made = self.get(next(tensors_in([out]), x))
            if kept and made is not None and made.units is not None:
                return connections
        for operand in operands:
            operand[2].refuse(_not_followed(name))
        return None

    def _follows_norm(
        self, name: str, x: Tensor, index: Tensor, connections: UnitConnections, values: Sequence[Any]
    ) -> bool:
        """Record a norm; whether its output has the units of its input."""
        if connections.norm is not None:
            return False
        owned = [t for t in tensors_in(values[1:]) if id(t) in self._owners]
        if any(id(t) in self._tied for t in owned):
            connections.refuse("it shares parameters with another layer")
        if owned:
            connections.norm = self._owners[id(owned[0])]
            connections.norm_name = self._names[connections.norm]
            self._calls[connections.norm] += 1
        if name in ops.MIXING_NORMS:
            connections.refuse(f"{name} stands before it: a new unit would change what the others get")
        columns = units.along(index, x.shape, -1 if name in ops.TRAILING_NORMS else 1 - x.ndim)
        return columns is not None and torch.equal(columns, torch.arange(len(columns)))


def _is_linear(owner: nn.Module, bound: Mapping[str, Any]) -> bool:
    """Whether a call of `linear` uses the module's own weight and bias, as nn.Linear does."""
    return stored(owner, "weight") is bound["weight"] and stored(owner, "bias") is bound.get("bias")


def _is_frozen(layer: nn.Module) -> bool:
    weight = stored(layer, "weight")
    return isinstance(weight, Tensor) and not weight.requires_grad


def _is_over_positions(args: Sequence[Any], kwargs: Mapping[str, Any], x: Tensor, index: Tensor) -> bool:
    """Whether a reduction leaves the units as they are: it goes over none of their axes."""
    dims = ops.dims_of(args, kwargs)
    reduced = {dim - x.ndim if dim >= 0 else dim for dim in dims or ()}
    return dims is not None and reduced.isdisjoint(units.varying(index))


def _not_followed(name: str) -> str:
    if name in ops.SUMS:
        return "it is added to something else (a residual sum)"
    return f"it goes through {name}, which is not followed"
