"""How much of the variance of a table is explained by its factors, balanced or not.

Additive models are fitted by backfitting: each factor's means are subtracted in turn until nothing changes;
on a balanced table the first round is exact. Shapes: B resamples, C cells, k levels.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from scipy import sparse

ROUNDS = 200
TOLERANCE = 1e-9


class Groups:
    """A partition of C cells into k groups.

    Args:
        index: (C,) group of each cell.
    """

    def __init__(self, index: np.ndarray) -> None:
        levels, self.index = np.unique(index, return_inverse=True)
        cells = len(index)
        self.matrix = sparse.csr_array(
            (np.ones(cells), (self.index, np.arange(cells))), shape=(len(levels), cells)
        )

    def means(self, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """The weighted mean of each cell's group: (B, C) → (B, C); 0 if all its weights are 0."""
        total = (self.matrix @ (weights * y).T).T
        count = (self.matrix @ weights.T).T
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = np.where(count > 0, total / count, 0.0)
        return mean[:, self.index]


def residuals(y: np.ndarray, weights: np.ndarray, groups: Sequence[Groups]) -> np.ndarray:
    """Residuals of y from an additive model of these groups: (B, C)."""
    left = y - _grand_mean(y, weights)
    scale = np.sqrt(np.average(left**2, weights=weights)) if weights.any() else 0.0
    for _ in range(ROUNDS if len(groups) > 1 else 1):
        change = 0.0
        for group in groups:
            means = group.means(left, weights)
            left = left - means
            change = max(change, float(np.abs(means).max(initial=0)))
        if change <= TOLERANCE * scale or not groups:
            break
    return left


def explained(
    y: np.ndarray,
    weights: np.ndarray,
    mains: Sequence[Groups],
    pairs: Sequence[Groups],
    finer: Sequence[Collection[int]],
) -> tuple[np.ndarray, np.ndarray]:
    """Sums of squares that each term adds to a model of the others (type II).

    A main effect is added to all other main effects but those of finer partitions, which would explain it; a
    pair, the joint partition by two factors, to all main effects.

    Args:
        y: (B, C) cell means; any number where the weight is 0.
        weights: (B, C) runs per cell.
        mains: the factors.
        pairs: the interactions.
        finer: for each factor, the numbers of those that determine it.

    Returns:
        (B, mains) and (B, pairs).
    """
    full = residuals(y, weights, mains)
    rest = _squares(full, weights)

    def left(groups: Sequence[Groups]) -> np.ndarray:
        return _squares(residuals(y, weights, groups), weights)

    main = []
    for k, group in enumerate(mains):
        others = [other for j, other in enumerate(mains) if j != k and j not in finer[k]]
        main.append(left(others) - (left([*others, group]) if finer[k] else rest))
    pair = [rest - _squares(residuals(full, weights, [joint, *mains]), weights) for joint in pairs]
    empty = np.zeros((len(y), 0))
    stacked = [np.stack(terms, axis=1) if terms else empty for terms in (main, pair)]
    return np.maximum(stacked[0], 0), np.maximum(stacked[1], 0)


def _squares(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return (weights * values**2).sum(axis=1)


def _grand_mean(y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    total = weights.sum(axis=1, keepdims=True)
    return np.where(total > 0, (weights * y).sum(axis=1, keepdims=True) / np.maximum(total, 1e-300), 0.0)
