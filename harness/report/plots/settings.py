"""Styles for the settings of a comparison: colour, line and marker, in the order of their values."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from harness.compare.frames import number
from harness.report.style import LINES, MARKERS, OKABE_ITO, ordered


class Style(NamedTuple):
    """Colour, line style and marker of one setting."""

    color: Any
    linestyle: Any
    marker: str


def styles(settings: list[str]) -> dict[str, Style]:
    """A style for each setting: distinct colours for words; a colour scale for numbers or many settings.

    Args:
        settings: in words, such as "optim.lr=0.1".

    Example:
        >>> styles(["activation=relu", "activation=elu"])["activation=elu"].color
        '#D55E00'
    """
    values = [number(setting.rpartition("=")[2]) for setting in settings]
    numbers = len(settings) > 2 and None not in values
    scale = len(settings) > len(OKABE_ITO) or (numbers and all(" " not in s for s in settings))
    colours: list[Any] = ordered(len(settings)) if scale else list(OKABE_ITO)
    return {
        setting: Style(colours[k], LINES[k % len(LINES)], MARKERS[k % len(MARKERS)])
        for k, setting in enumerate(settings)
    }


def key(name: str) -> str:
    """A configuration key in short: the name of the group for a key that selects its member.

    Example:
        >>> key("activation.name"), key("optim.lr")
        ('activation', 'optim.lr')
    """
    return name.removesuffix(".name")


def logarithmic(values: np.ndarray) -> bool:
    """Whether values are positive and span at least a factor of 10.

    Example:
        >>> logarithmic(np.array([0.01, 0.1, 1.0])), logarithmic(np.array([1.0, 2.0, 3.0]))
        (True, False)
    """
    values = np.unique(values[np.isfinite(values)])
    return len(values) > 1 and bool(values[0] > 0) and bool(values[-1] / values[0] >= 10)
