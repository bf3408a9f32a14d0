"""Units of effects: how a difference is printed."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, isnan


@dataclass(frozen=True)
class Unit:
    """How differences and sizes are told.

    Attributes:
        name: behind the number.
        scale: the number is multiplied by.
        ratio: whether differences are of natural logarithms, told as factors.
        decimals: of the number.

    Example:
        >>> POINTS.change(0.123), RATIO.change(0.6931), RATIO.size(0.6931), POINTS.size(0.1)
        ('+12.3 points', '×2.00', 'a factor of 2.00', '10 points')
    """

    name: str
    scale: float = 1.0
    ratio: bool = False
    decimals: int = 2

    def change(self, value: float, *, bare: bool = False) -> str:
        """A difference, with its sign; `bare` without the unit's name."""
        if isnan(value):
            return "no value"
        if self.ratio:
            return f"×{exp(value):.{self.decimals}f}"
        number = f"{value * self.scale + 0.0:+.{self.decimals}f}"
        return number if bare or not self.name else f"{number} {self.name}"

    def size(self, value: float) -> str:
        """A size, without a sign."""
        if self.ratio:
            return f"a factor of {exp(value):.{self.decimals}f}"
        return f"{value * self.scale:.3g} {self.name}".rstrip()


POINTS = Unit("points", 100.0, decimals=1)  # percentage points
RATIO = Unit("", ratio=True)
