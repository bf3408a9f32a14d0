"""The weights in a forward pass: parameters, and what is computed from parameters alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from harness.graph import operations as ops
from harness.graph.producers import Producer, Producers, part_of, turned
from harness.graph.tensor_map import TensorMap

Weights = list[tuple[Tensor, Producer]]


class KnownWeights:
    """Tensor → the producer it stands for; does not keep tensors alive.

    Args:
        model: the model whose parameters are known.
    """

    def __init__(self, model: nn.Module) -> None:
        self._producers = Producers(model)
        self._derived = TensorMap[Producer]()

    def enter(self, module: nn.Module) -> None:
        """Enter a module's forward."""
        self._producers.look_at(module)

    def of(self, tensor: Tensor) -> Producer | None:
        """The producer for a parameter, or for a tensor computed from parameters; None for any other."""
        own = self._producers.of(tensor)
        return self._derived.get(tensor) if own is None else own

    def kept_in_range(self, tensor: Tensor) -> Producer | None:
        """The producer for a matrix of weights on which an activation is called, to keep them positive, say.

        None for vectors and numbers, and for what inputs have chosen: their activations have units.
        """
        found = self.of(tensor) if tensor.ndim > 1 else None
        return None if found is None or found.gathered else found

    def derive(self, name: str, args: Sequence[Any], weights: Weights, outs: Sequence[Tensor]) -> None:
        """Record results of a call on weights alone: transposed, selected, masked or normalised weights."""
        weight, owner = next(((t, w) for t, w in weights if t.ndim > 1), weights[0])
        for place, out in enumerate(outs):
            made_by = owner
            if name in ops.SELECTIONS and out.numel() != weight.numel():
                made_by = part_of(owner, name, args, place)
            elif ops.transposes(name, args, weight.ndim):
                made_by = turned(owner)
            self.put(out, made_by)

    def put(self, tensor: Tensor, owner: Producer) -> None:
        """Record a tensor computed from parameters alone."""
        self._derived.put(tensor, owner)
