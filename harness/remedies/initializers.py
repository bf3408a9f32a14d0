"""The distributions that new weights are drawn from."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

#: Fills a weight (units, ...) in place.
Initializer = Callable[[Tensor, torch.Generator | None], object]
#: (qualified name of the layer, its weight, units) → new rows (len(units), ...).
DrawRows = Callable[[str, Tensor, Tensor], Tensor]


def torch_default(weight: Tensor, generator: torch.Generator | None) -> Tensor:
    """PyTorch's default for `nn.Linear` and convolutions: uniform in ±1/√fan_in."""
    return nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)


def make_draw(law: Initializer | None, generator: torch.Generator | None) -> DrawRows:
    """Return a function that draws a whole weight on the CPU and selects the rows of the given units.

    The whole weight is drawn because a distribution may depend on its shape.

    Example:
        >>> draw = make_draw(None, torch.Generator().manual_seed(0))
        >>> draw("layer", torch.zeros(4, 3), torch.tensor([0, 2])).shape
        torch.Size([2, 3])
    """
    fill = torch_default if law is None else law

    def draw(name: str, weight: Tensor, units: Tensor) -> Tensor:
        whole = torch.empty(weight.shape)
        fill(whole, generator)
        return whole[units.cpu()]

    return draw
