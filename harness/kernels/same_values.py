"""Same values: equality of tensors of any layout, which `torch.equal` knows of dense ones alone."""

from __future__ import annotations

import torch
from torch import Tensor

ROWS = (torch.sparse_csr, torch.sparse_bsr)  # compressed along the rows
COLUMNS = (torch.sparse_csc, torch.sparse_bsc)  # along the columns


def same_values(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have one shape, layout and device, and the same values.

    Example:
        >>> a = torch.eye(3).to_sparse()
        >>> same_values(a, a.clone()), same_values(a, 2 * a), same_values(a, torch.eye(3))
        (True, False, False)
    """
    if a is b:
        return True
    if a.shape != b.shape or a.layout != b.layout or a.device != b.device or a.is_nested or b.is_nested:
        return False
    return all(torch.equal(x, y) for x, y in zip(_parts(a), _parts(b), strict=True))


def _parts(tensor: Tensor) -> tuple[Tensor, ...]:
    if tensor.layout is torch.sparse_coo:
        tensor = tensor.coalesce()
        return tensor.indices(), tensor.values()
    if tensor.layout in ROWS:
        return tensor.crow_indices(), tensor.col_indices(), tensor.values()
    if tensor.layout in COLUMNS:
        return tensor.ccol_indices(), tensor.row_indices(), tensor.values()
    return (tensor,)
