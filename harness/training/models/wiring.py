"""What a network declares: which layer feeds which activation, and which weights start at zero.

A block declares both for its own submodules, in relative names; the functions here collect them over a
model. This shows where a bias offset belongs without a forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

DECLARED = "_harness_feeds"  # attribute that holds the feeds of a user's own network


@dataclass(frozen=True)
class Feed:
    """An activation and the nearest layer before it that has parameters per unit.

    Args:
        activation: name of the activation module.
        layer: name of the Linear or Conv, or of the norm layer if one lies between.
        summed: whether a shortcut is added to the layer's output before the activation; then the layer
            shifts the pre-activation but does not determine it alone.
    """

    activation: str
    layer: str
    summed: bool = False


def feeds(model: nn.Module) -> list[Feed]:
    """Return all feeds of a model with full names, in the order of the forward pass.

    This is the order of registration, which all models of this package follow.

    Args:
        model: a network of `harness.training.models`, or any with blocks that have a `feeds` attribute.

    Example:
        >>> block = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> setattr(block, "feeds", (Feed("1", "0"),))
        >>> feeds(nn.Sequential(block, nn.Linear(3, 1)))
        [Feed(activation='0.1', layer='0.0', summed=False)]
    """
    if hasattr(model, DECLARED):
        return list(getattr(model, DECLARED))
    return [
        Feed(_join(name, feed.activation), _join(name, feed.layer), feed.summed)
        for name, module in model.named_modules()
        for feed in getattr(module, "feeds", ())
    ]


def zeroed(model: nn.Module) -> set[str]:
    """Return the names of the layers whose weight and bias start at exactly 0 under every scheme.

    Example:
        >>> zeroed(nn.Linear(2, 3))
        set()
    """
    if hasattr(model, DECLARED):
        return set()
    return {
        _join(name, layer)
        for name, module in model.named_modules()
        for layer in getattr(module, "zeroed", ())
    }


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
