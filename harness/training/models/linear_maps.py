"""The linear maps of a network, which an initialisation draws."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor, nn

from harness.activations.stored import stored


class LinearMap(NamedTuple):
    """One linear map of a layer: weight (units, ...) and bias (units,) or None, as writable views."""

    weight: Tensor
    bias: Tensor | None


def layers(model: nn.Module) -> Iterator[tuple[str, list[LinearMap]]]:
    """Iterate over the layers with linear maps, in order of registration: name and maps.

    Query, key and value of an attention layer are three maps of one layer.

    Example:
        >>> [(name, len(maps)) for name, maps in layers(nn.MultiheadAttention(4, 2))]
        [('', 3), ('out_proj', 1)]
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            if isinstance(stored(module, "weight"), Tensor):  # skip weights computed by a parametrization
                yield name, [LinearMap(module.weight, module.bias)]
        elif isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
            weights = module.in_proj_weight.chunk(3)
            biases = (None,) * 3 if module.in_proj_bias is None else module.in_proj_bias.chunk(3)
            yield name, [LinearMap(weight, bias) for weight, bias in zip(weights, biases, strict=True)]
