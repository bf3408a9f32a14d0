"""TensorBoard's web application in this process, asked without a network."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

with warnings.catch_warnings():  # of TensorBoard's own dependencies
    warnings.simplefilter("ignore")
    from tensorboard.backend import application
    from tensorboard.backend.event_processing.data_ingester import LocalDataIngester
    from tensorboard.program import TensorBoard
    from werkzeug.test import Client


class App:
    """The application on a folder, all of it loaded.

    Args:
        folder: the log directory.
    """

    def __init__(self, folder: Path) -> None:
        board = TensorBoard()
        fixed = ["--reload_interval", "0", "--reload_task", "blocking", "--load_fast", "false"]
        every = "scalars=9999,images=99,histograms=99,tensors=99"
        board.configure(argv=["tensorboard", "--logdir", str(folder), "--samples_per_plugin", every, *fixed])
        ingester = LocalDataIngester(board.flags)
        ingester.start()
        self._client = Client(
            application.TensorBoardWSGIApp(
                board.flags,
                board.plugin_loaders,
                ingester.data_provider,
                None,
                ingester.deprecated_multiplexer,
            )
        )

    def get(self, path: str, **query: str) -> Any:
        """The answer to a GET, as JSON if it is."""
        response = self._client.get(f"/data/{path}?{urlencode(query)}")
        assert response.status_code == 200, response.get_data(as_text=True)
        kind = response.content_type or ""
        return json.loads(response.get_data(as_text=True)) if "json" in kind else response.get_data()

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The answer to a POST."""
        response = self._client.post(f"/data/{path}", json=body)
        assert response.status_code == 200, response.get_data(as_text=True)
        return json.loads(response.get_data(as_text=True))
