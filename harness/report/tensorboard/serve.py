"""Runs TensorBoard on a folder of runs."""

from __future__ import annotations

import io
import logging
import threading
from contextlib import redirect_stderr
from pathlib import Path


def serve(folder: Path, port: int | None = None) -> str:
    """Start TensorBoard in this process, with which it ends.

    Args:
        folder: a folder of runs.
        port: None uses 6006, or the next free one.

    Returns:
        Its address.

    Raises:
        OSError: the port is taken.
    """
    from tensorboard.program import TensorBoard, TensorBoardServerException

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would log every request
    board = TensorBoard()
    chosen = [] if port is None else ["--port", str(port)]
    board.configure(argv=["tensorboard", "--logdir", str(folder), *chosen])
    try:
        with redirect_stderr(io.StringIO()):  # an advertisement of how fast it loads
            return str(board.launch())
    except TensorBoardServerException as error:
        raise OSError(str(error)) from None


def wait() -> None:
    """Wait until the user interrupts."""
    threading.Event().wait()
