"""Connections of the units of one layer: what makes them, and what reads them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from torch import Tensor, nn

from harness.activations.stored import stored
from harness.graph.plan import modules_by_name


class Consumer(NamedTuple):
    """A layer that reads the units of a site.

    Attributes:
        name: name of the layer.
        layer: a Linear or a convolution.
        unit_index: (inputs of the layer,) int64, the unit that each input column belongs to.
    """

    name: str
    layer: nn.Module
    unit_index: Tensor

    @property
    def columns(self) -> Tensor:
        """Deprecated: use `unit_index`."""
        warnings.warn(
            "Outlet.columns is deprecated: use Consumer.unit_index", DeprecationWarning, stacklevel=2
        )
        return self.unit_index


@dataclass(eq=False)
class UnitConnections:
    """Connections of the units of one layer.

    Attributes:
        name: name of the layer.
        layer: the layer whose rows make the units: a Linear or a convolution.
        site: name of the units' site, "" if no activation is called on them.
        activation: canonical name of that activation.
        norm_name: name of the norm, "" if there is none.
        norm: the norm between layer and activation, None if there is none.
        consumers: the layers that read the units.
        repeated: whether the layer or the norm is called more than once in a forward pass.
        problem: why its units cannot be replaced one by one, "" if they can.
    """

    name: str
    layer: nn.Module
    site: str = ""
    activation: str = ""
    norm_name: str = ""
    norm: nn.Module | None = None
    consumers: list[Consumer] = field(default_factory=list)
    repeated: bool = False
    problem: str = ""

    @property
    def size(self) -> int:
        """Number of units."""
        weight = stored(self.layer, "weight")
        assert isinstance(weight, Tensor)
        return len(weight)

    @property
    def outlets(self) -> list[Consumer]:
        """Deprecated: use `consumers`."""
        warnings.warn(
            "UnitConnections.outlets is deprecated: use consumers", DeprecationWarning, stacklevel=2
        )
        return self.consumers

    def refuse(self, reason: str) -> None:
        """Record a reason why the units cannot be replaced; the first one is kept."""
        self.problem = self.problem or reason

    def of(self, model: nn.Module) -> UnitConnections:
        """The corresponding connections in another model with the same structure."""
        modules = modules_by_name(model)
        return replace(
            self,
            layer=modules[self.name],
            norm=modules[self.norm_name] if self.norm else None,
            consumers=[consumer._replace(layer=modules[consumer.name]) for consumer in self.consumers],
        )
