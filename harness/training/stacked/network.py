"""A stack of multilayer perceptrons: the forward and backward pass of all members at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from harness.config.schema import Activation, Mlp, Norm, Skip
from harness.training.stacked.layers import Activations, BatchNorm, Head, LayerNorm, Linear
from harness.training.stacked.parameters import Parameter

Seen = Callable[[int, Tensor], None]  # (number of the activation, its input or ∂L/∂input (K, B, F))


class _Block:
    """act(norm(linear(x))), with its skip connection."""

    def __init__(
        self,
        config: Mlp,
        activations: Sequence[Activation],
        parameters: Mapping[str, Parameter],
        buffers: Mapping[str, Tensor],
        name: str,
    ) -> None:
        self.skip = config.skip
        self.linear = Linear(parameters, f"{name}.linear")
        self.norm: BatchNorm | LayerNorm | None = None
        if config.norm is Norm.batch:
            self.norm = BatchNorm(parameters, f"{name}.norm", buffers)
        elif config.norm is Norm.layer:
            self.norm = LayerNorm(parameters, f"{name}.norm")
        self.act = Activations(parameters, f"{name}.act", activations)
        self.pre = LayerNorm(parameters, f"{name}.pre") if config.skip is Skip.pre_norm else None
        branch = config.skip in (Skip.pre_norm, Skip.zero_init)
        self.out = Linear(parameters, f"{name}.out") if branch else None

    def forward(self, x: Tensor, number: int, seen: Seen | None, *, training: bool) -> Tensor:
        inner = x if self.pre is None else self.pre.forward(x, training=training)
        z = self.linear.forward(inner, training=training)
        if self.norm is not None:
            z = self.norm.forward(z, training=training)
        if self.skip is Skip.post_add:
            z = x + z
        if seen is not None:
            seen(number, z)
        a = self.act.forward(z, training=training)
        return a if self.out is None else x + self.out.forward(a, training=training)

    def backward(self, dy: Tensor, number: int, seen: Seen | None, *, inputs: bool) -> Tensor | None:
        da = dy if self.out is None else self.out.backward(dy)
        assert da is not None
        dz = self.act.backward(da)
        if seen is not None:
            seen(number, dz)
        dlinear = dz if self.norm is None else self.norm.backward(dz)
        dx = self.linear.backward(dlinear, inputs=inputs)
        if dx is None or self.skip is Skip.none:
            return dx
        if self.skip is Skip.post_add:
            return dx.add_(dz)
        return dy + (dx if self.pre is None else self.pre.backward(dx))


class StackedMLP:
    """The forward and backward pass of `harness.training.models.mlp.MLP` with a leading member axis.

    Args:
        config: configuration shared by all members.
        activations: activation of each member; equal ones must be adjacent.
        parameters: parameters of the stack, under the names of a single model.
        buffers: running statistics of batch norms, (K, ...).
    """

    def __init__(
        self,
        config: Mlp,
        activations: Sequence[Activation],
        parameters: Sequence[Parameter],
        buffers: Mapping[str, Tensor],
    ) -> None:
        named = {p.name: p for p in parameters}
        self.stem = None if config.skip is Skip.none else Linear(named, "stem")
        names = [f"layers.{k}" for k in range(config.depth)]
        self.blocks = [_Block(config, activations, named, buffers, name) for name in names]
        self.head = Head(named, "head")

    def forward(self, x: Tensor, seen: Seen | None = None, *, training: bool = True) -> Tensor:
        """Compute logits (K, C, B) from inputs (K, B, F); `seen` is called with every pre-activation."""
        if self.stem is not None:
            x = self.stem.forward(x, training=training)
        for number, block in enumerate(self.blocks):
            x = block.forward(x, number, seen, training=training)
        return self.head.forward(x, training=training)

    def backward(self, dlogits: Tensor, seen: Seen | None = None) -> None:
        """Compute all gradients; `seen` is called with ∂L/∂z of every activation, last one first."""
        dx: Tensor | None = self.head.backward(dlogits)
        for number in range(len(self.blocks) - 1, -1, -1):
            assert dx is not None
            first = number == 0 and self.stem is None
            dx = self.blocks[number].backward(dx, number, seen, inputs=not first)
        if self.stem is not None and dx is not None:
            self.stem.backward(dx, inputs=False)
