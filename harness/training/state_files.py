"""Files of named tensors and plain values, read and written with torch."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn

from harness.config.errors import ConfigError
from harness.store.files import whole
from harness.store.reading import is_there


def read(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Return the content of a file; empty if it cannot be read."""
    try:
        content = torch.load(path, map_location=device, weights_only=True) if is_there(path) else {}
    except (OSError, RuntimeError, EOFError, ValueError, UnpicklingError):
        return {}
    return content if isinstance(content, dict) else {}


def write(path: Path, content: dict[str, Any]) -> None:
    """Write a file as a whole or not at all; OSError if it cannot be written."""
    with whole(path) as part:
        try:
            torch.save(content, part)
        except RuntimeError as error:  # torch raises it for a full disk
            raise OSError(f"cannot write {path} ({str(error).splitlines()[0]})") from error


def load_weights(model: nn.Module, path: str) -> None:
    """Load weights from a run's checkpoint or a stored `state_dict` into a model.

    Buffers missing from the file, such as the slopes of an activation, stay as they are.

    Raises:
        ConfigError: the file has no weights, or those of another network.
    """
    content, own = read(Path(path).expanduser()), model.state_dict()
    stored = content.get("model", content)
    for name in [*dict(model.named_parameters()), *stored]:
        needed, came = (_shape(state.get(name)) for state in (own, stored))
        if needed != came:
            raise ConfigError(
                "init.path", expected=f"weights of this network, {name} {needed}", came=f"{came} in {path}"
            )
    model.load_state_dict(own | stored)


def _shape(value: Any) -> str:
    return f"of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else "absent"
