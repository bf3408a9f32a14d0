"""One look for every figure: plain axes, and colours that the colour-blind can tell apart."""

from __future__ import annotations

from typing import Any

DEAD = "#111111"  # a unit that never opened: darker than any rate
UNOBSERVED = "#d9d9d9"

RC: Any = {
    "figure.dpi": 110,
    "savefig.dpi": 150,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "legend.frameon": False,
    "figure.facecolor": "white",
}
