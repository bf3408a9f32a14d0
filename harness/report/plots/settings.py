"""How the settings of a comparison are told apart: colour, line and marker, in the order of their values."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from harness.report.style import LINES, MARKERS, OKABE_ITO, ordered


class Style(NamedTuple):
    """Colour, line style and marker of one setting."""

    color: Any
    linestyle: Any
    marker: str


def styles(settings: list[Any]) -> dict[Any, Style]:
    """A style for each setting: unordered ones as far apart as can be, numbers and many along a scale.

    Example:
        >>> styles(["relu", "elu"])["elu"].color
        '#D55E00'
    """
    scale = len(settings) > len(OKABE_ITO) or (len(settings) > 2 and all(_number(s) for s in settings))
    colours: list[Any] = ordered(len(settings)) if scale else list(OKABE_ITO)
    return {
        setting: Style(colours[k], LINES[k % len(LINES)], MARKERS[k % len(MARKERS)])
        for k, setting in enumerate(settings)
    }


def word(value: Any) -> str:
    """A value of the configuration as it is typed.

    Example:
        >>> word(0.010), word(32.0), word("relu"), word(True)
        ('0.01', '32', 'relu', 'true')
    """
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value)).lower()
    if isinstance(value, (int, float, np.number)):
        return f"{value:.6g}"
    return str(value)


def key(name: str) -> str:
    """A configuration key in short: the group alone where it chooses what the group is.

    Example:
        >>> key("activation.name"), key("optim.lr")
        ('activation', 'optim.lr')
    """
    return name.removesuffix(".name")


def in_order(values: pd.Series) -> list[Any]:
    """The different values, numbers by size, others as they come.

    Example:
        >>> in_order(pd.Series([1.0, 0.1, 1.0])), in_order(pd.Series(["relu", "elu"]))
        ([0.1, 1.0], ['relu', 'elu'])
    """
    found = values.dropna().unique().tolist()
    return sorted(found) if all(_number(value) for value in found) else found


def logarithmic(values: np.ndarray) -> bool:
    """Whether positive values are spread by factors rather than by differences.

    Example:
        >>> logarithmic(np.array([0.01, 0.1, 1.0])), logarithmic(np.array([1.0, 2.0, 3.0]))
        (True, False)
    """
    values = np.unique(values[np.isfinite(values)])
    return len(values) > 1 and bool(values[0] > 0) and bool(values[-1] / values[0] >= 10)


def _number(value: Any) -> bool:
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return False
        return True
    return isinstance(value, (int, float, np.number)) and not isinstance(value, (bool, np.bool_))
