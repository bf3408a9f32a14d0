"""The user's own data, from a file of arrays or a function, checked before use."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, TensorDataset

from harness.config.errors import ConfigError
from harness.config.schema import CustomData
from harness.config.targets import arguments, call, error_text, imported

MOST_CLASSES = 100_000  # protects against a huge network built for a stray label
NAMES = ("x_train", "y_train", "x_test", "y_test")
RETURNED = (
    "expected (train, test), each a torch Dataset or a pair (x, y), or (x_train, y_train, x_test, y_test)"
)
Fault = Callable[..., ConfigError]  # problem, hint


class RawData(NamedTuple):
    """A data set in its stored form.

    Attributes:
        x_train: (N, C, H, W) images or (N, F) vectors; uint8 or float32.
        y_train: (N,) int64, 0 … classes - 1.
        x_test: like x_train, possibly of another length.
        y_test: like y_train.
        classes: number of classes.
        divisor: maps stored values to [0, 1]; 1 for float inputs, which are not scaled.
    """

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    classes: int
    divisor: float


def stored_arrays(path: str) -> RawData:
    """Read the arrays of an .npz file.

    Raises:
        ConfigError: there is no such file, or it does not hold valid data.
    """
    fault = partial(_fault, "data.path", path)
    try:
        # Opened here because NumPy would leave a damaged file open.
        with Path(path).expanduser().open("rb") as stored, np.load(stored, allow_pickle=False) as file:
            if absent := [name for name in NAMES if name not in file.files]:
                raise fault(f"{', '.join(absent)} is missing")
            found = {name: file[name] for name in NAMES}
    except ConfigError:
        raise
    except FileNotFoundError:
        raise ConfigError("data.path", f"there is no file {path}") from None
    # A .npy opens as an array, which is not a context manager (TypeError); object arrays raise ValueError.
    except (OSError, RuntimeError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise fault("this is not a readable .npz of plain arrays") from error
    return _checked(found, fault)


def made_arrays(data: CustomData) -> RawData:
    """Call the user's function, once for all runs of a process, with torch's seed set to 0.

    Raises:
        ConfigError: it cannot be called, or does not return valid data.
    """
    return _made(data.target, json.dumps(data.args), data.root)


@lru_cache(maxsize=1)
def _made(target: str, args: str, root: str) -> RawData:
    function = imported(target, "data.target")
    keywords = arguments(function, json.loads(args), {"root": root}, "data.args")
    fault = partial(_fault, "data.target", target)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        returned = call(target, function, keywords, "data.target")
        try:
            found = _four(returned)
        except KeyboardInterrupt:
            raise
        except Exception as error:
            raise fault(f"reading what it returned raised {error_text(error)}") from error
    if found is None:
        came = type(returned).__name__
        if isinstance(returned, tuple | list) and 0 < len(returned) < 9:
            came += f" of {', '.join(type(one).__name__ for one in returned)}"
        raise fault(f"{RETURNED}, but got {came}")
    return _checked(dict(zip(NAMES, found, strict=True)), fault)


def _four(returned: Any) -> list[np.ndarray] | None:
    """Return x_train, y_train, x_test, y_test; None if the function returned something else."""
    if not isinstance(returned, tuple | list):
        return None
    if len(returned) == 4:
        return [_array(one) for one in returned]
    halves = [_half(one) for one in returned]
    if len(halves) != 2 or None in halves:
        return None
    return [_array(one) for half in halves if half is not None for one in half]


def _half(half: Any) -> tuple[Any, Any] | None:
    """Return the inputs and labels of a pair, or of a torch Dataset read item by item; None otherwise."""
    if isinstance(half, tuple | list):
        return (half[0], half[1]) if len(half) == 2 else None
    if isinstance(half, TensorDataset) and len(half.tensors) == 2:
        return half.tensors
    if isinstance(half, IterableDataset):
        items = list(half)
    elif (
        hasattr(half, "__getitem__")
        and hasattr(half, "__len__")
        and not isinstance(half, Tensor | np.ndarray)
    ):
        items = [half[place] for place in range(len(half))]
    else:
        return None
    if not items or any(not isinstance(item, tuple | list) or len(item) != 2 for item in items):
        return None
    return np.stack([_array(x) for x, _ in items]), np.stack([_array(y) for _, y in items])


def _array(value: Any) -> np.ndarray:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype in (torch.bfloat16, torch.float16) else value).numpy()
    return np.asarray(value)


def _checked(found: dict[str, np.ndarray], fault: Fault) -> RawData:
    x_train, x_test = (_inputs(name, found[name], fault) for name in ("x_train", "x_test"))
    y_train, y_test = (_labels(name, found[name], fault) for name in ("y_train", "y_test"))
    for part, x, y in (("train", x_train, y_train), ("test", x_test, y_test)):
        if len(x) != len(y):
            raise fault(f"x_{part} holds {len(x)} inputs, but y_{part} {len(y)} labels")
    if x_train.shape[1:] != x_test.shape[1:] or x_train.dtype != x_test.dtype:
        train, test = (f"{tuple(x.shape[1:])} {x.dtype}" for x in (found["x_train"], found["x_test"]))
        raise fault(f"an input of x_train is {train}, but of x_test {test}")
    classes = int(max(y_train.max(), y_test.max())) + 1
    return RawData(x_train, y_train, x_test, y_test, classes, 255.0 if x_train.dtype == torch.uint8 else 1.0)


def _inputs(name: str, x: np.ndarray, fault: Fault) -> Tensor:
    """Check inputs and convert images to (N, C, H, W); (N, F) stays."""
    if x.ndim not in (2, 3, 4) or x.size == 0:
        raise fault(f"{name} has shape {x.shape}, not (N, C, H, W), (N, H, W) or (N, F)")
    if x.dtype != np.uint8 and x.dtype.kind != "f":
        raise fault(f"{name} is {x.dtype}, not uint8 or float", "Convert it with astype.")
    if x.dtype != np.uint8:
        with np.errstate(over="ignore"):
            x = x.astype(np.float32)
        if not np.isfinite(x).all():
            raise fault(f"{name} holds NaN or infinity in float32")
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[3] in (1, 3) and x.shape[1] not in (1, 3):
        x = x.transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(x))


def _labels(name: str, y: np.ndarray, fault: Fault) -> Tensor:
    """Check labels: (N,) integers from 0."""
    if y.ndim != 1 or y.size == 0:
        raise fault(f"{name} has shape {y.shape}, not (N,)")
    if y.dtype.kind not in "biuf" or not ((y >= 0) & (y < 2**31) & (y == np.floor(y))).all():
        raise fault(f"{name} must hold whole numbers from 0")
    if y.max() >= MOST_CLASSES:
        row = int(y.argmax())
        raise fault(
            f"{name} holds the label {int(y[row]):,} in row {row:,}, for a network with as many outputs",
            f"Number the classes from 0; there can be {MOST_CLASSES:,}.",
        )
    return torch.from_numpy(y.astype(np.int64))


def _fault(key: str, source: str, problem: str, hint: str = "") -> ConfigError:
    return ConfigError(key, f"{source}: {problem}", hint=hint)
