"""Figures as PNG, SVG or PDF: bytes, files, and pixels."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imread

from harness.report.style import rc
from harness.store.files import whole

FORMATS = (".png", ".svg", ".pdf")


def image(made: Figure, kind: str, *, dpi: float = 110) -> bytes:
    """A figure as the bytes of a file.

    Args:
        made: the figure.
        kind: "png", "svg" or "pdf".
        dpi: resolution of PNGs, and of images within the other formats.

    Example:
        >>> image(Figure(figsize=(1, 1)), "png")[1:4]
        b'PNG'
    """
    buffer = io.BytesIO()
    facts = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(
        kind
    )  # the same figure, the same bytes
    with mpl.rc_context(rc()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # names in scripts that the font lacks
        made.savefig(buffer, format=kind, dpi=dpi, metadata=facts)
    return buffer.getvalue()


def pixels(made: Figure) -> np.ndarray:
    """A figure as (height, width, 3), uint8.

    Example:
        >>> pixels(Figure(figsize=(1, 1))).shape
        (110, 110, 3)
    """
    rgba = imread(io.BytesIO(image(made, "png")), format="png")
    return np.round(rgba[..., :3] * 255).astype(np.uint8)


def save(made: Figure, path: str | Path, *, dpi: float = 150) -> Path:
    """Write a figure to a file atomically.

    Args:
        made: the figure.
        path: ends in .png, .svg or .pdf.
        dpi: resolution of PNGs.

    Raises:
        ValueError: unknown suffix.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ValueError(f"path: expected a file ending in {', '.join(FORMATS)}, but got {path.name}")
    with whole(path) as part:
        part.write_bytes(image(made, path.suffix[1:], dpi=dpi))
    return path
