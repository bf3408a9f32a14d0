"""What a network tells about itself: which layer feeds which activation, which weights start at zero.

A block states both for its own submodules, in relative names; the functions here gather them over a
model. So nobody has to run a forward pass to know where a bias offset belongs.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

DECLARED = "_harness_feeds"  # attribute of a network of the user's own: its feeds


@dataclass(frozen=True)
class Feed:
    """An activation and the nearest layer before it that has parameters per unit.

    Args:
        activation: name of the activation module.
        layer: name of the Linear or Conv, or of the norm layer if one stands between.
        summed: whether a shortcut is added to the layer's output before the activation; then the layer
            shifts the pre-activation, but does not alone decide it.
    """

    activation: str
    layer: str
    summed: bool = False


def feeds(model: nn.Module) -> list[Feed]:
    """Every feed of a model with full names, in the order of the forward pass.

    The order is that of registration, which every model of this package keeps to.

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
    """Names of the layers whose weight and bias start at exactly 0, whatever the scheme.

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
