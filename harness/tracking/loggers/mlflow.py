"""MLflow: the module with its active run, or a client and a run id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.tracking.loggers.logger import Logger


class MlflowLogger(Logger):
    """Logs scalars as metrics; histograms (as JSON), images and texts as artifacts; alerts as tags.

    Args:
        client: an `MlflowClient`.
        run_id: id of the run.
    """

    def __init__(self, client: Any, run_id: str) -> None:
        self._client, self._run = client, run_id

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._client.log_metric(self._run, _key(name), value, step=step)

    def histogram(self, name: str, values: np.ndarray, step: int) -> None:
        counts, edges = np.histogram(values, bins=20, range=(0, 1))
        found = {"step": step, "counts": counts.tolist(), "edges": edges.tolist()}
        self._client.log_dict(self._run, found, f"{_key(name)}/{step:08d}.json")

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        self._client.log_image(self._run, pixels, f"{_key(name)}.png")

    def text(self, name: str, text: str, step: int) -> None:
        self._client.log_text(self._run, text, f"{_key(name)}.txt")

    def alert(self, text: str, step: int) -> None:
        self._client.set_tag(self._run, "dead_units.alert", text)
        super().alert(text, step)


def _key(name: str) -> str:
    """Replace characters that MLflow does not accept in names."""
    return "".join(c if c.isalnum() or c in "/_-. " else "_" for c in name)
