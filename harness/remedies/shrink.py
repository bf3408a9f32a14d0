"""Shrink and perturb: move all parameters towards a new initialisation (Ash & Adams 2020, arXiv 1910.08475).

θ ← λθ + σθ', where θ' are the parameters of a freshly initialised network, as in the authors' code, so that
every parameter is perturbed on the scale of its own initial distribution. The optimizer's state is unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from harness.remedies.events import RemedyEvent

KIND = "shrink_perturb"


@torch.no_grad()
def shrink_perturb(
    model: nn.Module, fresh: nn.Module | Mapping[str, Tensor], *, shrink: float, noise: float
) -> list[RemedyEvent]:
    """Shrink all parameters and add a fraction of fresh ones, in place.

    Args:
        model: the model; its parameters change, its buffers do not.
        fresh: a freshly initialised network of the same architecture, or its named parameters.
        shrink: λ, from 0 to 1.
        noise: σ, at least 0.

    Raises:
        ValueError: a number is out of range, or a parameter is missing from `fresh` or has another shape.

    Example:
        >>> model, fresh = nn.Linear(1, 1), nn.Linear(1, 1)
        >>> _ = [nn.init.constant_(p, 2.0) for p in model.parameters()]
        >>> _ = [nn.init.constant_(p, 1.0) for p in fresh.parameters()]
        >>> shrink_perturb(model, fresh, shrink=0.5, noise=0.25)[0].detail
        'parameters x 0.5 + 0.25 x a fresh draw'
        >>> model.weight.item()
        1.25
    """
    if not 0 <= shrink <= 1:
        raise ValueError(f"shrink: expected a number from 0 to 1, but got {shrink!r}")
    if not 0 <= noise < float("inf"):
        raise ValueError(f"noise: expected a number at least 0, but got {noise!r}")
    own = dict(model.named_parameters())
    other = dict(fresh.named_parameters()) if isinstance(fresh, nn.Module) else dict(fresh)
    odd = [n for n, p in own.items() if n not in other or other[n].shape != p.shape]
    if odd:
        raise ValueError(f"fresh: expected a parameter {odd[0]} of shape {tuple(own[odd[0]].shape)}")
    for name, parameter in own.items():
        parameter.mul_(shrink).add_(other[name].to(parameter), alpha=noise)
    return [RemedyEvent(KIND, "", 0, f"parameters x {shrink:g} + {noise:g} x a fresh draw")]
