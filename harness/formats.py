"""Format numbers consistently in all tables, figures and sentences."""

from __future__ import annotations

import math


def per_cent(share: float | None, decimals: int = 1, *, missing: str = "no value") -> str:
    """Format a share as a percentage; a missing value is not 0 %.

    Example:
        >>> per_cent(0.125), per_cent(float("nan")), per_cent(None, missing="-")
        ('12.5 %', 'no value', '-')
    """
    return missing if share is None or share != share else f"{100 * share:.{decimals}f} %"


def points(difference: float) -> str:
    """Format a difference of shares in percentage points.

    Example:
        >>> points(0.1234), points(float("nan")), points(float("inf"))
        ('+12.3', '-', '∞')
    """
    if difference != difference:
        return "-"
    return "∞" if math.isinf(difference) else f"{100 * difference:+.1f}"
