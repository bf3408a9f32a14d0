"""The record of one activation function. Imports no torch, since the report's views read it, too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.activations.gates import Gate
from harness.activations.stored import is_computed, stored

Parameters = Mapping[str, Any]
Curve = Callable[[np.ndarray], np.ndarray]  # z → values, same shape; CReLU: (2, …)


@dataclass(frozen=True)
class Activation:
    """One activation function.

    Attributes:
        name: canonical name, as in site names and configurations.
        modules: module classes, in torch.nn or dotted; their attributes are named like the parameters.
        gate_of: (parameters, eps) → gate; None if these parameters make it no activation.
        value: f, with torch's default parameters.
        slope: f', which determines the gate; at a kink, the value that autograd uses.
        formula: the formula as text.
        window: range of z in its diagram.
        spellings: names of functions and methods, without the underscore of in-place ones; empty: the name.
            They are looked up in torch, torch.nn.functional, torch.special, Tensor and aten.
        parameters: name → default of the arguments after the input, in aten's order.
        positional: their names in the order of the Python function, if it differs.
        computed_by: function of z and `parameters`, in torch.nn.functional or dotted; empty: the name.
        options: option of the configuration → (argument of the module, default); None: a configuration
            cannot choose it. The options are those of a class in `harness.config.schema`.
        units: argument of the module for the number of units; its parameters are learned.
        outputs: values per unit.
        kernel: aten's name, if it has `….out` and `…_backward` for stacks; None: stacks use autograd.
        constants: parameters → arguments of the kernel after the input.
    """

    name: str
    modules: tuple[str, ...]
    gate_of: Callable[[Parameters, float], Gate | None]
    value: Curve
    slope: Curve
    formula: str
    window: tuple[float, float] = (-4.0, 4.0)
    spellings: tuple[str, ...] = ()
    parameters: Parameters = field(default_factory=dict)
    positional: tuple[str, ...] | None = None
    computed_by: str = ""
    options: Mapping[str, tuple[str, float]] | None = None
    units: str | None = None
    outputs: int = 1
    kernel: str | None = None
    constants: Callable[[Parameters], tuple[float, ...]] = lambda p: tuple(p.values())

    def gate(self, given: Parameters, eps: float) -> Gate | None:
        """The gate for these parameters; torch's defaults replace missing values and None."""
        known = dict(self.parameters)
        for name, value in given.items():
            if value is not None:  # numbers may be ints, or tensors with one value
                known[name] = float(value) if isinstance(known.get(name), float) else value
        return self.gate_of(known, eps)

    def gate_of_module(self, module: Any, eps: float) -> Gate:
        """The gate for a module's current attributes; computed ones are evaluated if `gate_of` allows it."""
        given = {
            name: getattr(module, name) if is_computed(module, name) else stored(module, name)
            for name in self.parameters
        }
        gate = self.gate(given, eps)
        assert gate is not None, f"{self.name} of {module} has no gate"
        return gate
