"""The layers of torch.nn whose outputs have units, and their unit axes."""

from __future__ import annotations

from torch import nn

CONVOLUTION_DIMS: dict[type[nn.Module], int] = {
    nn.Conv1d: 1,
    nn.Conv2d: 2,
    nn.Conv3d: 3,
    nn.ConvTranspose1d: 1,
    nn.ConvTranspose2d: 2,
    nn.ConvTranspose3d: 3,
}
LAST_AXIS = (nn.Linear, nn.Bilinear, nn.LayerNorm, nn.RMSNorm, nn.Embedding, nn.EmbeddingBag)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
CHANNEL_AXIS = (*BATCH_NORMS, *INSTANCE_NORMS, nn.GroupNorm)
LAYERS = (*CONVOLUTION_DIMS, *LAST_AXIS, *CHANNEL_AXIS)


def layer_axis(module: nn.Module, ndim: int) -> int | None:
    """Unit axis, from the end, of the output of a layer with `ndim` axes; None if the module is no layer.

    >>> layer_axis(nn.Conv2d(1, 2, 3), 4), layer_axis(nn.BatchNorm1d(3), 2), layer_axis(nn.ReLU(), 2)
    (-3, -1, None)
    """
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
