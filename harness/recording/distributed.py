"""One census over all ranks of a distributed training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from harness.graph.plan import Site
from harness.kernels.accumulators import ACTIVE, INPUTS_SINCE_ACTIVE, MAX, NON_FINITE, SHIFT
from harness.kernels.statistics import UnitStatistics, empty


def is_distributed(model: nn.Module) -> bool:
    """Whether other processes train the same model (DistributedDataParallel or sharded parameters)."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return False
    from torch.distributed.tensor import DTensor
    from torch.nn.parallel import DistributedDataParallel

    wrapped = any(isinstance(module, DistributedDataParallel) for module in model.modules())
    return wrapped or any(isinstance(p, DTensor) for p in model.parameters())


def all_reduce(
    sites: Sequence[Site], statistics: Sequence[UnitStatistics], *, extended: bool = False
) -> tuple[list[Site], list[UnitStatistics]]:
    """Combine the statistics of all ranks; a collective call with the same result on every rank.

    A site that a rank has not called yet counts there with no inputs. `silent_for` is the shortest silence of
    a rank times the number of ranks, assuming that ranks run in step with equal batches.

    `extended`: whether there are user-defined statistics.

    Raises:
        RuntimeError: the ranks disagree on the size of a site.
    """
    every: list[list[Site]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(every, list(sites))
    union = {site.name: site for part in every for site in part}
    for part in every:
        for site in part:
            if site.size != union[site.name].size:
                raise RuntimeError(f"the ranks see different numbers of units at {site.name!r}")
    own = dict(zip((site.name for site in sites), statistics, strict=True))
    device = statistics[0].counts.device if statistics else torch.device("cpu")
    return list(union.values()), [
        _reduced(own.get(name) or empty(site.size, device), present=name in own, extended=extended)
        for name, site in union.items()
    ]


def _extensions_of_all(own: tuple[Any, ...]) -> tuple[Any, ...]:
    """Merge the user-defined statistics of all ranks."""
    every: list[tuple[Any, ...]] = [()] * dist.get_world_size()
    dist.all_gather_object(every, own)
    merged = next((part for part in every if part), ())
    for part in every:
        if part is not merged:
            for into, other in zip(merged, part, strict=False):
                into.merge(other)
    return merged


def _reduced(statistics: UnitStatistics, *, present: bool, extended: bool) -> UnitStatistics:
    total = empty(statistics.size, statistics.counts.device)
    counts, shift = statistics.counts.clone(), _common_shift(statistics.sums)
    sums = statistics.around(shift)
    if not present:
        counts[INPUTS_SINCE_ACTIVE] = torch.iinfo(torch.int64).max // dist.get_world_size()
    inputs = torch.tensor([statistics.n, statistics.grad_n], device=counts.device)
    silent, peak = counts[INPUTS_SINCE_ACTIVE].clone(), sums[MAX].clone()
    sums[MAX] = 0
    added: list[Tensor] = [counts, sums, inputs]
    for tensor in added:
        dist.all_reduce(tensor)
    dist.all_reduce(silent, dist.ReduceOp.MIN)
    dist.all_reduce(peak, dist.ReduceOp.MAX)
    total.n, total.grad_n = (int(v) for v in inputs)
    for row in (ACTIVE, NON_FINITE):
        total.counts[row] = counts[row]
    total.counts[INPUTS_SINCE_ACTIVE] = silent * dist.get_world_size()
    total.sums.copy_(sums)
    total.sums[MAX], total.sums[SHIFT] = peak, shift
    if extended:
        total.extensions = _extensions_of_all(statistics.extensions)
    return total


def _common_shift(sums: Tensor) -> Tensor:
    """Return a common shift, so that the sums of all ranks can be added: the largest one that is set."""
    shift = torch.where(sums[MAX] > -torch.inf, sums[SHIFT], -torch.inf)
    dist.all_reduce(shift, dist.ReduceOp.MAX)
    return torch.where(shift > -torch.inf, shift, 0.0)
