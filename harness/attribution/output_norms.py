"""Output norms: how large a step's outputs are, and the gradient that the loss gives them.

They tell what raised a loss. If the parameters or the inputs moved, the outputs did too; if the loss's scale
or what it compares with changed, the gradient at the outputs did; if neither did, the loss has a part that
does not read them.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.attribution.loss_graph import hidden_of, outputs_of
from harness.recording.listener import Guard


class OutputNorms:
    """Gathers the differentiable outputs of a step's forwards, on their device."""

    def __init__(self) -> None:
        self._guard = Guard("output norms")  # its errors disable only these
        self._outputs: list[Tensor] = []  # norm of each output
        self._values = 0
        self._gradients: list[Tensor] = []  # norm of each gradient
        self._hidden: dict[int, set[int]] = {}  # number of outputs → places of hidden ones

    def add(self, output: Any) -> None:
        """Add the output of a forward; hidden layers that are returned as well are left out."""
        self._guard.run(self._add, output)

    def __bool__(self) -> bool:
        return bool(self._outputs)

    def take(self) -> tuple[Any, Any]:
        """Rms of the outputs since the last call, and the norm of their gradients; NaN if there is none."""
        outputs, values, gradients = self._outputs, self._values, self._gradients
        self._outputs, self._values, self._gradients = [], 0, []
        if not outputs:
            return np.nan, np.nan
        return _whole(outputs) / max(1, values) ** 0.5, _whole(gradients) if gradients else np.nan

    def _add(self, output: Any) -> None:
        outputs = outputs_of(output)
        outputs = [out for out in outputs if out.ndim] or outputs  # some models return their loss, too
        if len(outputs) > 1:
            if len(outputs) not in self._hidden:
                hidden = hidden_of(outputs)
                self._hidden[len(outputs)] = {at for at, out in enumerate(outputs) if id(out) in hidden}
            outputs = [out for at, out in enumerate(outputs) if at not in self._hidden[len(outputs)]]
        for out in outputs:
            self._outputs.append(_norm(out))
            self._values += out.numel()
            out.register_hook(partial(self._guard.run, _add_norm, self._gradients))


def _add_norm(norms: list[Tensor], gradient: Tensor | None) -> None:
    """Append ‖∂L/∂output‖; custom backwards may give None."""
    if gradient is not None:
        norms.append(_norm(gradient))


def _norm(tensor: Tensor) -> Tensor:
    half = tensor.dtype in (torch.float16, torch.bfloat16)
    return torch.linalg.vector_norm(tensor.detach(), dtype=torch.float32 if half else None)


def _whole(norms: list[Tensor]) -> Tensor:
    """The norm of everything, on the device of the first part."""
    first = norms[0]
    return torch.linalg.vector_norm(torch.stack([norm.to(first.device, first.dtype) for norm in norms]))
