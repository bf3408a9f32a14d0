"""Shapley values: a total change divided among its factors (Shapley 1953)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress, product
from math import factorial
from typing import Any

import numpy as np

Coalition = frozenset[str]


def coalitions(factors: Iterable[str]) -> Iterator[Coalition]:
    """Every set of the factors, from none to all.

    Example:
        >>> [sorted(c) for c in coalitions("ab")]
        [[], ['b'], ['a'], ['a', 'b']]
    """
    factors = list(factors)
    for chosen in product((False, True), repeat=len(factors)):
        yield frozenset(compress(factors, chosen))


def shapley(value: Mapping[Coalition, np.ndarray], factors: Sequence[str]) -> dict[str, np.ndarray]:
    """Shapley values of a game, given the values of all coalitions.

    Args:
        value: coalition → its value, arrays of one shape.
        factors: all factors.

    Returns:
        Factor → its value; they sum to v(all) - v(none).

    Example:
        >>> v = {frozenset(s): np.array(float(len(s) == 2)) for s in ("", "a", "b", "ab")}
        >>> {f: float(x) for f, x in shapley(v, "ab").items()}
        {'a': 0.5, 'b': 0.5}
    """
    n = len(factors)
    shares = {}
    for factor in factors:
        share: Any = 0.0
        for base in coalitions(other for other in factors if other != factor):
            weight = factorial(len(base)) * factorial(n - len(base) - 1) / factorial(n)
            share = share + weight * (value[base | {factor}] - value[base])
        shares[factor] = np.asarray(share)
    return shares
