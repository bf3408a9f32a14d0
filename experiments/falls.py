"""How a unit falls: its level after every step of a training, and what moved it.

The level m(s) of a unit is its greatest pre-activation over all training inputs after s steps; the unit is
dead where m <= 0. A step changes its own weights and bias, p → p', and its inputs, a → a'. With m(p, a) for
the level, the two shares of the change (Shapley values: means over the two orders)

    own      = ½ [m(p', a) - m(p, a) + m(p', a') - m(p, a')]
    upstream = ½ [m(p, a') - m(p, a) + m(p', a') - m(p', a)]

add up to it exactly. Upstream is 0 in the first layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

Pair = tuple[Tensor, Tensor]  # weight (units, inputs) and bias (units,)


@dataclass(frozen=True)
class Trace:
    """A layer in training.

    Attributes:
        level: greatest pre-activation over the inputs after 0 … T steps: (T + 1, units).
        own: share of each step's change that the unit's own weights and bias made: (T, units).
    """

    level: np.ndarray
    own: np.ndarray


@torch.no_grad()
def follow(layers: Sequence[nn.Linear], x: Tensor, step: Callable[[int], None], steps: int) -> list[Trace]:
    """Train, and look at every unit on all inputs after every step.

    Args:
        layers: the hidden layers of an MLP of ReLUs, from the input on.
        x: all training inputs (N, features).
        step: trains the step of a number from 0.
        steps: how many.

    Returns:
        One trace per layer.
    """
    before = _copies(layers)
    seen = _inputs(before, x)
    levels = [[_level(pair, a)] for pair, a in zip(before, seen, strict=True)]
    own: list[list[Tensor]] = [[] for _ in layers]
    for number in range(steps):
        with torch.enable_grad():
            step(number)
        after = _copies(layers)
        moved = _inputs(after, x)
        for k, (old, new, a, b) in enumerate(zip(before, after, seen, moved, strict=True)):
            was, now = levels[k][-1], _level(new, b)
            first, last = (_level(new, a), _level(old, b)) if k else (now, was)
            own[k].append((first - was + now - last) / 2)
            levels[k].append(now)
        before, seen = after, moved
    stacks = zip(levels, own, strict=True)
    return [Trace(torch.stack(m).numpy(), torch.stack(change).numpy()) for m, change in stacks]


def deaths(trace: Trace) -> pd.DataFrame:
    """The units that were alive at first and are dead at last: one row each, with how they died.

    The death is at step t if m(t - 1) > 0 and m <= 0 from t to the end. The typical level M is the median of
    m over those of the steps 0 … t - 1 at which it was above 0. The fall begins at the last of them with
    m >= M, and ends at t.

    Returns:
        step: t.
        kind: "upstream" if over the fall the upstream changes sum to less than the own ones; else "kick" if
            some step of the fall has an own change below -M / 2; else "drift".
        jump: whether some step of the fall changed the level, by whatever cause, by less than -M / 2.
        length: steps of the fall.

    Example:
        >>> level = np.array([[2.0, 2.0, 2.1, 1.9, -1.0], [2.0, 1.5, 1.0, 0.5, -0.1]]).T
        >>> deaths(Trace(level, np.diff(level, axis=0)))["kind"].tolist()
        ['kick', 'drift']
    """
    rows = []
    for m, own in zip(trace.level.T, trace.own.T, strict=True):
        if not (m[0] > 0 and m[-1] <= 0):
            continue
        t = int(np.flatnonzero(m > 0)[-1]) + 1
        typical = float(np.median(m[:t][m[:t] > 0]))
        start = int(np.flatnonzero(m[:t] >= typical)[-1])
        change, mine = np.diff(m)[start:t], own[start:t]
        rest = change - mine
        kind = "upstream" if rest.sum() < mine.sum() else "kick" if mine.min() < -typical / 2 else "drift"
        rows.append((t, kind, bool(change.min() < -typical / 2), t - start))
    return pd.DataFrame(rows, columns=pd.Index(["step", "kind", "jump", "length"]))


def _copies(layers: Sequence[nn.Linear]) -> list[Pair]:
    return [(layer.weight.detach().clone(), layer.bias.detach().clone()) for layer in layers]


def _inputs(pairs: Sequence[Pair], x: Tensor) -> list[Tensor]:
    """What each layer is fed."""
    fed = [x]
    for weight, bias in pairs[:-1]:
        fed.append(nn.functional.linear(fed[-1], weight, bias).relu())
    return fed


def _level(pair: Pair, inputs: Tensor) -> Tensor:
    return nn.functional.linear(inputs, *pair).amax(0)
