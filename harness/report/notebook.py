"""Figures in a notebook: sharp on any screen, in a small file."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from harness.report.images import image

if TYPE_CHECKING:
    from IPython.display import Image

DPI = 150
COLOURS = 16  # colours of the PNG; lines and bars need no more
SHADES = 96  # of a heat map, whose colours are values


def notebook_image(made: Figure, *, dpi: float = DPI) -> Image:
    """A figure as the last expression of a cell, or for `IPython.display.display`.

    Args:
        made: the figure.
        dpi: resolution of the image, which is shown at its natural size.

    Returns:
        A PNG with a small palette.
    """
    import PIL.Image
    from IPython.display import Image

    small = io.BytesIO()
    drawn = PIL.Image.open(io.BytesIO(image(made, "png", dpi=dpi))).convert("RGB")
    colours = SHADES if any(axis.images for axis in made.axes) else COLOURS
    drawn.quantize(colours, dither=PIL.Image.Dither.NONE).save(small, format="png", optimize=True)
    return Image(small.getvalue(), width=round(made.get_figwidth() * 96))
