"""The parameters of a layer that have one part per unit, whose gradients make `grad_norm`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

from torch import Tensor, nn

from harness.activations.stored import is_computed, stored
from harness.graph.layers import LAYERS

TRANSPOSED = nn.modules.conv._ConvTransposeNd
COMPUTED = (
    "the weight of its layer is computed from other parameters (weight or spectral norm, or another "
    "parametrization), and only theirs have gradients"
)
EMBEDDING = "its units are made by an embedding, whose gradients are not read"
SQUARE = "the weight of its layer is square, so that its units may be rows or columns"
PARTLY_FROZEN = "several layers make its units together, and some of them are frozen"


def unit_parameters(producer: nn.Module, size: int) -> tuple[list[nn.Parameter], str]:
    """Return the parameters with one part per unit: weight and bias, or γ and β; and why there are none.

    A bias alone is only returned if the layer has no weight: it would say little of the unit.

    Example:
        >>> layer = nn.Linear(3, 2)
        >>> [tuple(p.shape) for p in unit_parameters(layer, 2)[0]]
        [(2, 3), (2,)]
        >>> unit_parameters(nn.Embedding(3, 2), 2)[1]
        'its units are made by an embedding, whose gradients are not read'
    """
    if isinstance(producer, nn.Embedding | nn.EmbeddingBag):
        return [], EMBEDDING
    weight, bias = _own(producer, "weight"), _own(producer, "bias")
    computed = any(is_computed(producer, name) for name in ("weight", "bias"))
    if any(isinstance(own, Tensor) and not _is_parameter(own) for own in producer._parameters.values()):
        return [], ""  # torch.func.functional_call has put others in their places for a while
    if computed or any(isinstance(own, Tensor) and not _is_parameter(own) for own in (weight, bias)):
        return [], COMPUTED
    if not isinstance(producer, LAYERS) and isinstance(weight, Tensor) and weight.shape == (size, size):
        return [], SQUARE
    found = [p for p in (weight, bias) if _is_parameter(p) and _has_parts(producer, p, size)]
    if not found or (isinstance(weight, Tensor) and found[0] is not weight):
        return [], ""  # a weight of another name, or shape: `grad_norm` is documented as of `weight`
    return found, ""


def _is_parameter(value: object) -> TypeGuard[nn.Parameter]:
    return isinstance(value, nn.Parameter)


def _own(producer: nn.Module, name: str) -> object:
    """A parameter as it is trained: pruning masks it, and keeps it under another name."""
    masked = f"{name}_mask" in producer._buffers
    return stored(producer, f"{name}_orig" if masked else name)


def _has_parts(producer: nn.Module, parameter: nn.Parameter, size: int) -> bool:
    """Whether a parameter has one part for each of `size` units."""
    if parameter.ndim == 1:
        return len(parameter) == size
    groups = producer.groups if isinstance(producer, TRANSPOSED) else 1
    axis = int(has_columns(producer))
    return parameter.shape[axis : axis + 1] == (size // groups,)


def is_partly_frozen(model: nn.Module, producers: Sequence[str]) -> bool:
    """Whether some of several producers are frozen, but not all: adapters beside a frozen layer.

    Args:
        model: the root module.
        producers: names of layers or of parameters, or of parts of these (`w[8:]`).
    """
    named = [(f"{name}.", parameter.requires_grad) for name, parameter in model.named_parameters()]
    wholes = {f"{producer.partition('[')[0]}." for producer in producers}
    own = [[trained for name, trained in named if name.startswith(whole)] for whole in wholes]
    trained = {any(flags) for flags in own if flags}
    return len(trained) > 1


def by_unit(gradient: Tensor, producer: nn.Module) -> Tensor:
    """Return a parameter's gradient with the units on axis 0."""
    if gradient.ndim == 1 or not has_columns(producer):
        return gradient
    if not isinstance(producer, TRANSPOSED):
        return gradient.T
    inputs, outputs = gradient.shape[:2]
    grouped = gradient.reshape(producer.groups, inputs // producer.groups, outputs, -1)
    return grouped.transpose(1, 2).reshape(producer.groups * outputs, -1)


def has_columns(producer: nn.Module) -> bool:
    """Whether the units are on axis 1 of the weight: a transposed convolution, or a matrix `x @ weight`."""
    if isinstance(producer, TRANSPOSED):
        return True
    weight, bias = stored(producer, "weight"), stored(producer, "bias")
    if isinstance(producer, LAYERS) or not isinstance(weight, Tensor) or not isinstance(bias, Tensor):
        return False
    return weight.ndim == 2 and weight.shape[0] != weight.shape[1] == bias.numel()
