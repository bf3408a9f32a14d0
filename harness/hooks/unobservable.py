"""Activations that cannot be observed: they are reported with the reason, never left out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import nn

from harness.activations.declared import parts_of_declared
from harness.activations.lookup import lookup
from harness.graph.plan import Site

UNKNOWN_MAKER = "it was called outside of the model's forward, where nothing tells which layer fed it"
MODES = {True: "it was called in training mode alone", False: "it was called in evaluation mode alone"}
OUT_OF_ORDER = (
    "forwards without a graph called an activation in varying order, so that some of its calls may be "
    "counted at another of its sites; from now on, every forward is traced"
)
UNDER_TRANSFORM = "it was called under vmap or without values (a trace)"
NO_INPUT = "it was called without any input"
NO_UNITS = "its layer has no units"
FUSED = (nn.modules.rnn.RNNBase, nn.modules.rnn.RNNCellBase)
QUANTISED = ("torch.ao.nn.quantized.dynamic.modules.rnn", "torch.nn.quantized.dynamic.modules.rnn")


class NotObservable(Exception):
    """A call whose units cannot be identified; the message is the reason."""


def unobserved(name: str, activation: str, reason: str) -> Site:
    """A site of unknown width."""
    return Site(name, activation, -1, None, (), reason)


def unobservable(
    names: Mapping[nn.Module, str],
    met: Iterable[Site],
    called: Collection[nn.Module],
    passed: Mapping[nn.Module, str],
) -> list[Site]:
    """The sites of a model that cannot be observed.

    Args:
        names: module → qualified name.
        met: sites that were called but could not be observed.
        called: activation modules that have been called.
        passed: activation modules called outside of counted forwards → the reason they were not counted.

    Example:
        >>> model = nn.Sequential(nn.ReLU())
        >>> [(site.name, site.reason) for site in unobservable({model[0]: "0"}, [], (), {})]
        [('0', 'it was never called')]
    """
    found, parts = list(met), parts_of_declared(names)
    for module, name in names.items():
        known = lookup(module)
        if isinstance(module, FUSED) or _is_quantised_recurrent(module):
            reason = "its units live inside a fused kernel"
            found.append(unobserved(name, type(module).__name__.lower(), reason))
        elif isinstance(module, torch.jit.ScriptModule):
            if not any(name.startswith(f"{s.name}.") or s.name == "" for s in found if s.reason):
                found.append(unobserved(name, "scripted", "a scripted module runs outside Python"))
        elif known is not None and module not in called and module not in parts:
            reason = passed.get(module, "it was never called")
            found.append(unobserved(name or known[0], known[0], reason))
    return found


def _is_quantised_recurrent(module: nn.Module) -> bool:
    """Whether it is an LSTM, a GRU or a cell with int8 weights, but not the container of such weights."""
    cls = type(module)
    return cls.__module__ in QUANTISED and not cls.__name__.startswith("Packed")


def failure(what: str, error: Exception) -> str:
    """The reason to report if observing failed."""
    return f"observing {what} failed, training goes on ({error_line(error)})"


def error_line(error: Exception) -> str:
    """An error's class and the first line of its message: torch's go on for pages.

    >>> error_line(ValueError(chr(10).join(("no kernel", "CPU: registered at …")))), error_line(KeyError())
    ('ValueError: no kernel', 'KeyError')
    """
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
