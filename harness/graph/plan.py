"""The Plan: what is observed of a model, as plain data that can be printed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

_WRAPPED = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")  # torch's names, at any depth
# Packages whose wrappers call what they wrap `module`.
_WRAPPERS = ("torch.nn.parallel.", "torch.distributed.", "torch.optim.swa_utils", "deepspeed.", "apex.")


@dataclass(frozen=True, slots=True)
class Site:
    """One activation call together with the layers that produce its input.

    Attributes:
        name: qualified name of the module called, `name#1` … for calls fed by other layers, `name:relu` for
            a function called in that module's forward, `:relu` in the root's own.
        activation: canonical name, e.g. "relu".
        size: number of units, -1 if unknown.
        axes: unit axes of the pre-activation: (1,) channels, (-1,) the last, (-3, -1) heads × features;
            None if unknown.
        producers: names of the layers (or parameters) with per-unit weights that make the pre-activation.
        reason: why the site cannot be observed, "" if it is.
        spelling: how the activation is called: "module" or "function".
        guessed: whether the unit axis is a guess.
        exact: whether unit i is unit i of the only producer: not after a residual sum, nor for half a layer.

    Example:
        >>> Site("features.1", "relu", size=64, axes=(1,), producers=("features.0",)).reason
        ''
    """

    name: str
    activation: str
    size: int
    axes: tuple[int, ...] | None
    producers: tuple[str, ...]
    reason: str = ""
    spelling: str = "module"
    guessed: bool = False
    exact: bool = True

    @property
    def axis(self) -> int | None:
        """Deprecated: use `axes`."""
        warnings.warn("Site.axis is deprecated: use Site.axes", DeprecationWarning, stacklevel=2)
        return self.axes[0] if self.axes else None

    @property
    def producer(self) -> str | None:
        """Deprecated: use `producers`."""
        warnings.warn("Site.producer is deprecated: use Site.producers", DeprecationWarning, stacklevel=2)
        return self.single_producer

    @property
    def single_producer(self) -> str | None:
        """The producer's name where its units are exactly the site's; None otherwise."""
        return self.producers[0] if len(self.producers) == 1 and self.exact else None


@dataclass(frozen=True)
class Plan:
    """What is observed; `print(plan)` shows one line per site.

    Attributes:
        sites: activation calls whose units are counted.
        terms: calls on tensors whose units were summed away before: they have no units and are not counted.
        unobserved: activations that exist but cannot be observed, with the reason.
        compiled: how compiled code is observed, "" while that is unknown.
    """

    sites: tuple[Site, ...] = ()
    terms: tuple[Site, ...] = ()
    unobserved: tuple[Site, ...] = ()
    compiled: str = ""

    def __str__(self) -> str:
        """The plan as a table."""
        head = ("site", "activation", "spelling", "units", "axes", "producers")
        lines = [head, *(_cells(site) for site in self.sites)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
        text = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines]
        rule = "─" * max(map(len, text))
        text = [text[0], rule, *text[1:]]
        if self.terms:
            names = ", ".join(f"{site.name} ({site.activation})" for site in self.terms)
            text.append(f"terms, not counted (their units were summed away before the call): {names}")
        text += [f"unobserved: {site.name} ({site.activation}): {site.reason}" for site in self.unobserved]
        text += [f"under torch.compile: {self.compiled}"] if self.compiled else []
        return "\n".join(text)


def _cells(site: Site) -> tuple[str, ...]:
    axes = "one unit" if site.axes == () else "unknown" if site.axes is None else str(site.axes)
    return (
        site.name,
        site.activation,
        site.spelling,
        str(site.size),
        axes + (" (guessed)" if site.guessed else ""),
        " + ".join((*site.producers, *(() if site.exact or not site.producers else ("…",)))) or "-",
    )


def shown_axes(axes: tuple[int, ...], ndim: int) -> tuple[int, ...]:
    """Axes as shown in a `Site`: channels as 1, everything else from the end.

    >>> shown_axes((-3,), 4), shown_axes((-1,), 2), shown_axes((-2, -1), 4)
    ((1,), (-1,), (-2, -1))
    """
    return (1,) if len(axes) == 1 and axes[0] != -1 and axes[0] == 1 - ndim else axes


def qualified_names(root: nn.Module) -> dict[nn.Module, str]:
    """Module → its first qualified name, without the prefixes of compile and data-parallel wrappers."""
    return {module: plain_name(name, root) for name, module in root.named_modules()}


def modules_by_name(root: nn.Module) -> dict[str, nn.Module]:
    """Modules by the names used for sites, without the prefixes of wrappers.

    >>> sorted(modules_by_name(nn.Sequential(nn.ReLU())))
    ['', '0']
    """
    return {name: module for module, name in qualified_names(root).items()}


def plain_name(name: str, root: nn.Module) -> str:
    """The name of a module or parameter of `root` without what wrappers add.

    >>> plain_name("module.0.weight", nn.DataParallel(nn.Sequential(nn.Linear(1, 1))))
    '0.weight'
    """
    prefix, _ = without_wrappers(root)
    dotted = f"{name}.".removeprefix(prefix)
    for part in _WRAPPED:
        dotted = f".{dotted}".replace(f".{part}.", ".").removeprefix(".")
    return dotted.removesuffix(".")


def without_wrappers(root: nn.Module) -> tuple[str, nn.Module]:
    """The model inside wrappers, which have it as their only part, and the prefix of its names.

    >>> without_wrappers(nn.DataParallel(nn.Linear(1, 1)))
    ('module.', Linear(in_features=1, out_features=1, bias=True))
    """
    name, inside = next(iter(root._modules.items()), ("", None))
    classes = [one.__module__ for one in type(root).__mro__]
    wraps = name in _WRAPPED or (name == "module" and any(one.startswith(_WRAPPERS) for one in classes))
    if len(root._modules) != 1 or root._parameters or inside is None or not wraps:
        return "", root
    prefix, model = without_wrappers(inside)
    return f"{name}.{prefix}", model


def site_from(description: Mapping[str, Any]) -> Site:
    """A site from its fields; earlier versions wrote `axis` and `producer`."""
    fields: dict[str, Any] = dict(description)
    if "axis" in fields:
        axis, producer = fields.pop("axis"), fields.pop("producer", None)
        fields |= {"axes": None if axis is None else (axis,), "producers": (producer,) if producer else ()}
    fields |= {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
    return Site(**fields)
