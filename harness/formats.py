"""Format numbers consistently in all tables, figures and sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def per_cent(share: float | None, decimals: int = 1, *, missing: str = "no value") -> str:
    """Format a share as a percentage; a missing value is not 0 %.

    Example:
        >>> per_cent(0.125), per_cent(float("nan")), per_cent(None, missing="-")
        ('12.5 %', 'no value', '-')
    """
    return missing if share is None or share != share else f"{100 * share:.{decimals}f} %"


def dead_words(row: Mapping[Any, Any], *, decimals: int = 1, unit: str = " %") -> str:
    """Format the dead share of a site: of its observed units, if any of them is finite.

    Args:
        row: units, dead, and as far as they are known unobserved and non_finite, of a site or of several.
        decimals: digits behind the point.
        unit: what follows the number.

    Example:
        >>> dead_words({"units": 8, "dead": 1}), dead_words({"units": 8, "dead": 0, "non_finite": 8})
        ('12.5 %', 'not finite')
    """
    observed = row["units"] - row.get("unobserved", 0)
    if observed <= 0:
        return "unobserved"
    if observed <= row.get("non_finite", 0):
        return "not finite"
    return f"{100 * row['dead'] / observed:.{decimals}f}{unit}"


def points(difference: float) -> str:
    """Format a difference of shares in percentage points.

    Example:
        >>> points(0.1234), points(float("nan")), points(float("inf"))
        ('+12.3', '-', '∞')
    """
    if difference != difference:
        return "-"
    return "∞" if math.isinf(difference) else f"{100 * difference:+.1f}"
