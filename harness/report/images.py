"""Figures as PNG and SVG: bytes, files, and what a web page can hold."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from harness.report.style import rc
from harness.store.files import whole

FORMATS = (".png", ".svg", ".pdf")


def image(made: Figure, kind: str, *, dpi: float = 110) -> bytes:
    """A figure as the bytes of a file.

    Args:
        made: the figure.
        kind: "png", "svg" or "pdf".
        dpi: of PNGs, and of pictures within the others.

    Example:
        >>> image(Figure(figsize=(1, 1)), "png")[1:4]
        b'PNG'
    """
    buffer = io.BytesIO()
    facts = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(
        kind
    )  # the same figure, the same bytes
    with mpl.rc_context(rc()):
        made.savefig(buffer, format=kind, dpi=dpi, metadata=facts)
    return buffer.getvalue()


def save(made: Figure, path: str | Path, *, dpi: float = 150) -> Path:
    """Write a figure to a file, whole or not at all.

    Args:
        made: the figure.
        path: ends in .png, .svg or .pdf.
        dpi: of PNGs.

    Raises:
        ValueError: another suffix.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ValueError(f"path: expected a file ending in {', '.join(FORMATS)}, but got {path.name}")
    with whole(path) as part:
        part.write_bytes(image(made, path.suffix[1:], dpi=dpi))
    return path
