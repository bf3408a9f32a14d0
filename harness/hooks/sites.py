"""Site: which activation call, fed by which layer, and along which axis its units lie."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True, slots=True)
class Site:
    """One activation call together with the module that produced its input.

    Attributes:
        name: qualified name of the module called, `name#1` … for later calls, `name:relu` for functions.
        activation: canonical name, e.g. "relu".
        size: number of units, -1 if unknown.
        axis: of the units in the pre-activation: -1 (last) or 1 (channels); None if unknown.
        producer: qualified name of the nearest module with per-unit parameters, None if there is none.
        reason: why the site cannot be observed, "" if it is.

    Example:
        >>> Site("features.1", "relu", size=64, axis=1, producer="features.0").reason
        ''
    """

    name: str
    activation: str
    size: int
    axis: int | None
    producer: str | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a tensor comes from.

    Attributes:
        producer: nearest module with per-unit parameters, None after a join of several (a residual sum).
        axis: unit axis counted from the end (-1, -3, …), None if unknown.
        direct: whether module hooks alone tell it; False if a function stood in between.
    """

    producer: nn.Module | None
    axis: int | None
    direct: bool = True


CONVOLUTION_DIMS: dict[type[nn.Module], int] = {
    nn.Conv1d: 1,
    nn.Conv2d: 2,
    nn.Conv3d: 3,
    nn.ConvTranspose1d: 1,
    nn.ConvTranspose2d: 2,
    nn.ConvTranspose3d: 3,
}
LAST_AXIS = (nn.Linear, nn.Bilinear, nn.LayerNorm, nn.RMSNorm, nn.Embedding, nn.EmbeddingBag)
CHANNEL_AXIS = (nn.modules.batchnorm._NormBase, nn.GroupNorm)
TRANSPARENT = (
    nn.Identity,
    nn.modules.dropout._DropoutNd,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
    nn.Upsample,
    nn.LocalResponseNorm,
)
FUSED = (nn.modules.rnn.RNNBase, nn.modules.rnn.RNNCellBase)


def layer_axis(module: nn.Module, ndim: int) -> int | None:
    """Unit axis, from the end, of the output of a layer with `ndim` axes; None if the module is no layer."""
    for cls, dims in CONVOLUTION_DIMS.items():
        if isinstance(module, cls):
            return -dims - 1
    if isinstance(module, nn.LayerNorm | nn.RMSNorm) and len(module.normalized_shape) == 3:
        return -3  # over whole images
    if isinstance(module, LAST_AXIS):
        return -1
    if isinstance(module, CHANNEL_AXIS):
        return 1 - ndim
    return None


def guess_axis(ndim: int) -> int:
    """Unit axis where nothing is known of the producer: the last, or the channels of images."""
    return -1 if ndim <= 3 else 1 - ndim


def shown_axis(axis: int) -> int:
    """The axis as `Site.axis` shows it."""
    return -1 if axis == -1 else 1


def qualified_names(root: nn.Module) -> dict[nn.Module, str]:
    """Module → its first qualified name, without the prefixes of compile and data-parallel wrappers."""
    return {module: plain_name(name) for name, module in root.named_modules()}


def plain_name(name: str) -> str:
    """A name without `_orig_mod.` and `module.` in front.

    >>> plain_name("module._orig_mod.layers.0")
    'layers.0'
    """
    for wrapper in ("_orig_mod", "module"):
        if name == wrapper:
            return ""
        if name.startswith(f"{wrapper}."):
            return plain_name(name[len(wrapper) + 1 :])
    return name.replace("._orig_mod.", ".").replace("._checkpoint_wrapped_module.", ".")
