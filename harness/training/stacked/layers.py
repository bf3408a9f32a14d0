"""The layers of a stack, with their backward passes written out.

Legend: K members, B inputs, F units. Everything lies in memory as (K, B, F); each layer keeps what its
backward needs, and the tensors it returns in training are its own: valid until its next training pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from harness.config.schema import Activation
from harness.training.stacked.activations import pair, slices
from harness.training.stacked.parameters import Parameter

EPS, MOMENTUM = 1e-5, 0.1  # of torch's norm layers


class Room:
    """Memory that is used again as long as shapes stay."""

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def __call__(self, name: str, like: Tensor, *shape: int) -> Tensor:
        kept = self._kept.get(name)
        if kept is None or kept.shape != shape:
            kept = self._kept[name] = like.new_empty(shape)
        return kept


class Linear:
    """x Wᵀ + b of each member: (K, B, I) → (K, B, F)."""

    def __init__(self, parameters: Mapping[str, Parameter], name: str) -> None:
        self.weight, self.bias = parameters[f"{name}.weight"], parameters.get(f"{name}.bias")
        self._x = self.weight.value
        self._room = Room()

    def forward(self, x: Tensor, *, training: bool) -> Tensor:
        weight = self.weight.value.transpose(1, 2)
        out = None
        if training:
            self._x = x
            out = self._room("z", x, *x.shape[:2], weight.shape[2])
        if self.bias is None:
            return torch.bmm(x, weight) if out is None else torch.bmm(x, weight, out=out)
        bias = self.bias.value.unsqueeze(1)
        return torch.baddbmm(bias, x, weight) if out is None else torch.baddbmm(bias, x, weight, out=out)

    def backward(self, dz: Tensor, *, inputs: bool = True) -> Tensor | None:
        """Parameter gradients, and ∂L/∂x where it is asked for."""
        torch.bmm(dz.transpose(1, 2), self._x, out=self.weight.grad)
        if self.bias is not None:
            torch.sum(dz, 1, out=self.bias.grad)
        if not inputs:
            return None
        return torch.bmm(dz, self.weight.value, out=self._room("dx", dz, *self._x.shape))


class BatchNorm:
    """Each unit over the batch, or with the running statistics in evaluation."""

    def __init__(self, parameters: Mapping[str, Parameter], name: str, buffers: Mapping[str, Tensor]) -> None:
        self.gamma, self.beta = parameters[f"{name}.weight"], parameters[f"{name}.bias"]
        self._mean, self._var = buffers[f"{name}.running_mean"], buffers[f"{name}.running_var"]
        self._batches = buffers[f"{name}.num_batches_tracked"]

    def forward(self, z: Tensor, *, training: bool) -> Tensor:
        gamma, beta = self.gamma.value.unsqueeze(1), self.beta.value.unsqueeze(1)
        if not training:
            scale = gamma * (self._var + EPS).rsqrt().unsqueeze(1)
            return (z - self._mean.unsqueeze(1)) * scale + beta
        var, mean = torch.var_mean(z, 1, correction=0, keepdim=True)
        n = z.shape[1]
        self._batches += 1
        self._mean.mul_(1 - MOMENTUM).add_(mean.squeeze(1), alpha=MOMENTUM)
        self._var.mul_(1 - MOMENTUM).add_(var.squeeze(1), alpha=MOMENTUM * n / (n - 1))
        self._inverse = (var + EPS).rsqrt_()
        self._normal = (z - mean).mul_(self._inverse)
        return torch.addcmul(beta, self._normal, gamma)

    def backward(self, dy: Tensor) -> Tensor:
        torch.sum(dy, 1, out=self.beta.grad)
        torch.sum(dy * self._normal, 1, out=self.gamma.grad)
        n = dy.shape[1]
        mean = (self.beta.grad / n).unsqueeze(1)
        slope = (self.gamma.grad / n).unsqueeze(1)
        dz = dy - mean
        dz.addcmul_(self._normal, slope, value=-1)
        return dz.mul_(self.gamma.value.unsqueeze(1) * self._inverse)


class LayerNorm:
    """Each input over its units."""

    def __init__(self, parameters: Mapping[str, Parameter], name: str) -> None:
        self.gamma, self.beta = parameters[f"{name}.weight"], parameters[f"{name}.bias"]

    def forward(self, z: Tensor, *, training: bool) -> Tensor:
        normal, mean, inverse = torch.native_layer_norm(z, z.shape[-1:], None, None, EPS)
        if training:
            self._z, self._normal, self._mean, self._inverse = z, normal, mean, inverse
        return torch.addcmul(self.beta.value.unsqueeze(1), normal, self.gamma.value.unsqueeze(1))

    def backward(self, dy: Tensor) -> Tensor:
        torch.sum(dy, 1, out=self.beta.grad)
        torch.sum(dy * self._normal, 1, out=self.gamma.grad)
        dnormal = dy * self.gamma.value.unsqueeze(1)
        shape, mask = list(dy.shape[-1:]), [True, False, False]
        return torch.ops.aten.native_layer_norm_backward(
            dnormal, self._z, shape, self._mean, self._inverse, None, None, mask
        )[0]


class Activations:
    """Every member's own activation: (K, B, F) → (K, B, F), or twice as wide for CReLU."""

    def __init__(
        self, parameters: Mapping[str, Parameter], name: str, activations: Sequence[Activation]
    ) -> None:
        self._slices = [(part, None if a.name == "prelu" else pair(a)) for part, a in slices(activations)]
        self.slope = parameters.get(f"{name}.weight")
        self._widening = 2 if activations[0].name == "crelu" else 1
        self._room = Room()

    def forward(self, z: Tensor, *, training: bool) -> Tensor:
        shape = (*z.shape[:2], z.shape[2] * self._widening)
        a = self._room("a", z, *shape) if training else z.new_empty(shape)
        for part, functions in self._slices:
            if functions is not None:
                functions.forward(z[part], a[part])
            else:
                torch.where(z[part] > 0, z[part], z[part] * self._slopes, out=a[part])
        if training:
            self._z, self._a = z, a
        return a

    def backward(self, da: Tensor) -> Tensor:
        dz = self._room("dz", da, *self._z.shape)
        for part, functions in self._slices:
            if functions is not None:
                functions.backward(da[part], self._z[part], self._a[part], dz[part])
            else:
                self._prelu_back(da[part], self._z[part], dz[part])
        return dz

    @property
    def _slopes(self) -> Tensor:
        assert self.slope is not None
        return self.slope.value.unsqueeze(1)

    def _prelu_back(self, da: Tensor, z: Tensor, dz: Tensor) -> None:
        assert self.slope is not None
        right = z > 0
        torch.where(right, da, da * self._slopes, out=dz)
        torch.sum(torch.where(right, 0.0, z * da), 1, out=self.slope.grad)
