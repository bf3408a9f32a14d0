"""Update clipping: no step may move the parameters much farther than the steps before it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

FEWEST = 10  # steps before the first one that can be shortened


class ClippedUpdates:
    """The hooks of `clip_updates`; `remove` ends it."""

    def __init__(self, optimizer: Optimizer, times: float, window: int) -> None:
        self._times, self._done = times, 0
        self._before: list[Tensor] = []
        self._lengths = torch.full((window,), torch.nan)
        hooks = optimizer.register_step_pre_hook, optimizer.register_step_post_hook
        self._handles = [hook(act) for hook, act in zip(hooks, (self._remember, self._shorten), strict=True)]

    def remove(self) -> None:
        """Let the optimizer take its own steps again."""
        for handle in self._handles:
            handle.remove()

    @torch.no_grad()
    def _remember(self, optimizer: Optimizer, *_: Any) -> None:
        parameters = _parameters(optimizer)
        self._before = [p.detach().clone() for p in parameters]
        gradients = [p.grad for p in parameters if p.grad is not None and p.grad.layout is torch.strided]
        for grad in gradients:  # else the optimizer would keep a NaN in its moments for ever
            grad.copy_(torch.where(grad.isfinite().all(), grad, 0.0))

    @torch.no_grad()
    def _shorten(self, optimizer: Optimizer, *_: Any) -> None:
        pairs = [*zip(_parameters(optimizer), self._before, strict=True)]
        self._before = []
        if not pairs:
            return
        device = pairs[0][0].device
        length = torch.stack([torch.linalg.vector_norm(p - old).to(device) for p, old in pairs]).norm()
        self._lengths = self._lengths.to(device)
        known = (~self._lengths.isnan()).sum() >= FEWEST
        longest = torch.where(known, self._times * self._lengths.nanmedian(), torch.inf)
        too_far = ~(length <= longest)  # a step that is not finite is too far as well
        part = torch.where(length.isfinite(), longest / length, 0.0)
        for p, old in pairs:
            change = torch.where(part > 0, (p - old) * part.to(p), 0.0)
            p.copy_(torch.where(too_far.to(p.device), old + change, p))
        done = torch.where(too_far, longest, length)
        tells_nothing = (length == 0) | done.isinf()
        done = torch.where(tells_nothing, torch.nan, done)
        self._lengths[self._done % len(self._lengths)] = done
        self._done += 1


def clip_updates(optimizer: Optimizer, times: float = 3.0, window: int = 50) -> ClippedUpdates:
    """Shorten every step that moves the parameters much farther than usual.

    One bad batch, a spike of the learning rate or of the loss can kill most units in a single step. Update
    clipping (Shazeer & Stern 2018, arXiv:1804.04235, section 6) bounds the step itself, here by the median of
    the steps before it (as Seetharaman et al. 2020, arXiv:2007.14469, bound gradients). It copies the
    parameters once a step and never waits for the device. The first ten steps that move anything are taken as
    they are. A gradient that is not finite counts as 0, so that it does not stay in the optimizer's moments.

    Args:
        optimizer: whose steps are bounded.
        times: longest step, in medians of the latest ones.
        window: number of latest steps.

    Returns:
        The hooks; their `remove()` ends it.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> import torch, harness
        >>> w = torch.nn.Parameter(torch.zeros(1))
        >>> optimizer = torch.optim.SGD([w], lr=0.01)
        >>> hooks = harness.remedies.clip_updates(optimizer)
        >>> for step in range(20):
        ...     w.grad = torch.full((1,), 1e6 if step == 15 else 1.0)
        ...     optimizer.step()
        >>> round(w.item(), 2)  # one step of 0.03 among 19 of 0.01
        -0.22
    """
    if not times >= 1 or window < FEWEST:
        raise ValueError(
            f"expected times of at least 1 and a window of at least {FEWEST}, but got {times} and {window}"
        )
    return ClippedUpdates(optimizer, times, window)


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]
