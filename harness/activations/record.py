"""What is known about one activation function. No torch: the report's views read it, too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.activations.gates import Gate

Parameters = Mapping[str, Any]
Curve = Callable[[np.ndarray], np.ndarray]  # z → values, same shape; CReLU: (2, …)


@dataclass(frozen=True)
class Activation:
    """One activation function.

    Attributes:
        name: canonical, as in site names and configurations.
        gate_of: (parameters, eps) → gate; None if these parameters make it no activation.
        value: f, with torch's default parameters.
        slope: f', by which the gate is open or closed; at a kink the one that autograd takes.
        formula: in words of mathematics.
        window: z from … to … of its diagram.
        modules: dotted names of module classes; their attributes are named like the parameters.
        spellings: of functions and methods, without the underscore of those in place. Each is looked for in
            torch, torch.nn.functional, torch.special, Tensor and aten.
        parameters: name → default of what follows the input, in aten's order.
        positional: the same names where Python's functions order them otherwise than aten.
        computed_by: dotted name of a function that takes z and `parameters` by name; None takes
            torch.nn.functional's of that name.
        options: option of the configuration → (argument of the module, default); None: a configuration
            cannot choose it. The options are those of a class in `harness.config.schema`.
        units: argument of the module that takes the number of units.
        outputs: values per unit.
        kernel: aten's name, if it has `….out` and `…_backward` for stacks; None: they take autograd.
        constants: parameters → arguments of the kernel after the input.
    """

    name: str
    gate_of: Callable[[Parameters, float], Gate | None]
    value: Curve
    slope: Curve
    formula: str
    window: tuple[float, float] = (-4.0, 4.0)
    modules: tuple[str, ...] = ()
    spellings: tuple[str, ...] = ()
    parameters: Parameters = field(default_factory=dict)
    positional: tuple[str, ...] | None = None
    computed_by: str | None = None
    options: Mapping[str, tuple[str, float]] | None = None
    units: str | None = None
    outputs: int = 1
    kernel: str | None = None
    constants: Callable[[Parameters], tuple[float, ...]] = lambda p: ()

    def gate(self, given: Parameters, eps: float) -> Gate | None:
        """The gate with these parameters, torch's defaults where they are missing or None."""
        known = {k: v for k, v in given.items() if v is not None}
        return self.gate_of({**self.parameters, **known}, eps)

    def gate_of_module(self, module: Any, eps: float) -> Gate:
        """The gate of a module, as its attributes are now."""
        gate = self.gate({name: getattr(module, name, None) for name in self.parameters}, eps)
        assert gate is not None, f"{self.name} of {module} has no gate"
        return gate
