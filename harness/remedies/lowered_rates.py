"""Learning rates that stay lowered, whatever a schedule or the loop sets before the next step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from harness.hooks.hook import EagerHook, weakly


class LoweredRates:
    """Divides the learning rates of optimizers, and those that are set later.

    Some schedules change the last rate, others compute each rate anew from the first one: a rate is divided
    again if it is nearer to the one that would stand there than to the one that was left.

    Args:
        optimizers: the optimizers.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.9)
        >>> schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
        >>> rates = LoweredRates([optimizer])
        >>> rates.lower(3.0)
        >>> optimizer.step(); schedule.step(); optimizer.step()
        >>> round(optimizer.param_groups[0]["lr"], 3)
        0.3
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self._optimizers = optimizers
        self._factor = 1.0
        self._left: dict[int, float] = {}  # id of a group → its rate when it was last seen

    def lower(self, by: float) -> None:
        """Divide all rates, and those from which schedules compute others."""
        shared: set[int] = set()  # a tensor may be the rate of several groups
        for group in (group for optimizer in self._optimizers for group in optimizer.param_groups):
            for name in ("lr", "initial_lr"):
                rate = group.get(name)
                if isinstance(rate, Tensor) and id(rate) not in shared:
                    shared.add(id(rate))
                    rate.div_(by)
                elif rate is not None and not isinstance(rate, Tensor):
                    group[name] = rate / by
        self.keep(self._factor * by)

    def keep(self, factor: float) -> None:
        """Keep the rates as they are, divided by a factor in all."""
        if self._factor == 1.0 != factor:
            before = EagerHook(weakly(self._before), lambda error: None)
            for optimizer in self._optimizers:
                optimizer.register_step_pre_hook(before)
        self._factor = factor
        groups = [group for optimizer in self._optimizers for group in optimizer.param_groups]
        self._left = {id(group): float(group["lr"]) for group in groups if _is_known(group["lr"])}

    def _before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Look at the rates before a step."""
        for group in optimizer.param_groups:
            rate, left = group["lr"], self._left.get(id(group), 0.0)
            if not _is_known(rate) or rate == left or not (rate > 0 and left > 0):
                continue
            if abs(math.log(rate / (left * self._factor))) < abs(math.log(rate / left)):
                if isinstance(rate, Tensor):
                    rate.div_(self._factor)
                else:
                    group["lr"] = rate / self._factor
            self._left[id(group)] = float(group["lr"])


def _is_known(rate: Any) -> bool:
    """Whether a rate can be read without waiting for a device."""
    return not isinstance(rate, Tensor) or rate.is_cpu
