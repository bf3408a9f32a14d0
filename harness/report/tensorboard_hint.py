"""Advice to print with the command that starts TensorBoard."""

from __future__ import annotations

from pathlib import Path

TICKED = 40  # largest number of runs that TensorBoard selects at first


def tick_hint(runs: int) -> str:
    """What to select if TensorBoard shows nothing at first; "" if it shows all runs.

    Args:
        runs: number of runs below the folder on which it is started.

    Example:
        >>> tick_hint(40), tick_hint(41)[:34]
        ('', 'Of more than 40 runs TensorBoard t')
    """
    if runs <= TICKED:
        return ""
    return (
        f"Of more than {TICKED} runs TensorBoard ticks none at first, but in Time Series and HParams: "
        "tick some on the left, or filter them by name."
    )


def runs_in(folder: Path) -> int:
    """Number of runs in a folder.

    Example:
        >>> runs_in(Path("nowhere"))
        0
    """
    return sum(1 for _ in folder.glob("*/status.json"))
