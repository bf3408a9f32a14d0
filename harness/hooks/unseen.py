"""What is there but cannot be observed: it is reported with its reason, never left out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import nn

from harness.activations.table import lookup
from harness.hooks.sites import FUSED, Site

UNDER_TRANSFORM = "it was called under vmap or without values (a trace)"


def hidden(name: str, activation: str, reason: str) -> Site:
    """A site of unknown width."""
    return Site(name, activation, -1, None, None, reason)


def unseen(names: Mapping[nn.Module, str], met: Iterable[Site], called: Collection[nn.Module]) -> list[Site]:
    """The sites of a model that cannot be observed.

    Args:
        names: module → qualified name.
        met: sites that were met but could not be told.
        called: activation modules that have been called.

    Example:
        >>> model = nn.Sequential(nn.ReLU())
        >>> [(site.name, site.reason) for site in unseen({model[0]: "0"}, [], ())]
        [('0', 'it was never called')]
    """
    found = list(met)
    for module, name in names.items():
        known = lookup(module)
        if isinstance(module, FUSED):
            fused = "its units live inside a fused kernel"
            found.append(hidden(name, type(module).__name__.lower(), fused))
        elif isinstance(module, torch.jit.ScriptModule):
            if not any(name.startswith(f"{s.name}.") or s.name == "" for s in found if s.reason):
                found.append(hidden(name, "scripted", "a scripted module runs outside Python"))
        elif known is not None and module not in called:
            found.append(hidden(name or known[0], known[0], "it was never called"))
    return found
