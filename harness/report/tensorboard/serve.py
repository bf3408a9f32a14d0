"""TensorBoard itself, on a folder of runs."""

from __future__ import annotations

import io
import logging
import threading
from contextlib import redirect_stderr
from pathlib import Path


def serve(folder: Path, port: int | None = None) -> str:
    """Start TensorBoard in this process; it ends with it.

    Args:
        folder: of runs.
        port: None takes 6006, or the next one that is free.

    Returns:
        Its address.

    Raises:
        OSError: the port is taken.
    """
    from tensorboard.program import TensorBoard, TensorBoardServerException

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would tell of every request
    board = TensorBoard()
    chosen = [] if port is None else ["--port", str(port)]
    board.configure(argv=["tensorboard", "--logdir", str(folder), *chosen])
    try:
        with redirect_stderr(io.StringIO()):  # an advertisement of how fast it loads
            return str(board.launch())
    except TensorBoardServerException as error:
        raise OSError(str(error)) from None


def wait() -> None:
    """Until the user interrupts."""
    threading.Event().wait()
