"""What stands around the units of one layer: what makes them, and what reads them."""

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
        name: of the layer.
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
    """What stands around the units of one layer.

    Attributes:
        name: of the layer.
        layer: whose rows make the units: a Linear or a convolution.
        site: name of the site whose units they are, "" if no activation is called on them.
        activation: canonical name of that activation.
        norm_name: of the norm, "" if there is none.
        norm: between layer and activation, None if there is none.
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
        """Units."""
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
        """The first reason stays."""
        self.problem = self.problem or reason

    def of(self, model: nn.Module) -> UnitConnections:
        """The same place in another model of the same making."""
        modules = modules_by_name(model)
        return replace(
            self,
            layer=modules[self.name],
            norm=modules[self.norm_name] if self.norm else None,
            consumers=[consumer._replace(layer=modules[consumer.name]) for consumer in self.consumers],
        )
