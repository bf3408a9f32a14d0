"""Where the arrays come from: handwritten digits, torchvision's downloads, a user's file, a random teacher.

What is read here does not depend on the run's seed: every arm of a sweep sees the same inputs.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from harness.config.errors import ConfigError
from harness.config.schema import Arrays, Data, Synthetic
from harness.training.randomness import stream

#: data=… -> the class of torchvision.datasets.
TORCHVISION = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "kmnist": "KMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
}
PATIENCE = 30.0  # seconds without an answer after which a download is given up
TEACHER_WIDTH = 64
MOST_CLASSES = 100_000  # a stray label would build a network of its size


class RawData(NamedTuple):
    """A data set as it was stored.

    Attributes:
        x_train: (N, C, H, W) images or (N, F) vectors; uint8 or float32.
        y_train: (N,) int64, 0 … classes - 1.
        x_test: the shape of x_train but for its length.
        y_test: as y_train.
        classes: how many there are.
        divisor: what takes the stored values to [0, 1]; 1 for float inputs, which stay as they are.
    """

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    classes: int
    divisor: float


def load_arrays(data: Data) -> RawData:
    """Read a data set, downloading it on first use. Treat the tensors as read-only: runs share them.

    Raises:
        ConfigError: the download failed (`data.root`) or the user's file is malformed (`data.path`).

    Example:
        >>> from harness.config import compose
        >>> raw = load_arrays(compose(["data=digits"]).data)
        >>> tuple(raw.x_train.shape), len(raw.x_test), raw.divisor
        ((1437, 1, 8, 8), 360, 16.0)
    """
    if isinstance(data, Synthetic):
        return _synthetic(data)
    if isinstance(data, Arrays):
        return _users(data.path)
    if data.name == "digits":
        return _digits()
    if data.name in TORCHVISION:
        return _downloaded(data.name, data.root)
    raise ConfigError("data", expected=f"one of digits, {', '.join(TORCHVISION)}", came=data.name)


@lru_cache(maxsize=1)
def _digits() -> RawData:
    """UCI's handwritten digits as scikit-learn carries them; every fifth input of each class is a test."""
    table = _digits_table()
    x = torch.from_numpy(table[:, :-1]).to(torch.uint8).view(-1, 1, 8, 8)
    y = torch.from_numpy(table[:, -1]).long()
    shuffled = torch.randperm(len(y), generator=stream(0, "digits"))
    by_class = shuffled[y[shuffled].argsort(stable=True)]
    tests = torch.zeros(len(y), dtype=torch.bool)
    tests[by_class[::5]] = True
    return RawData(x[~tests], y[~tests], x[tests], y[tests], classes=10, divisor=16.0)


def _digits_table() -> np.ndarray:
    """(1797, 65): pixels and label. Read from scikit-learn's file, since importing it takes a second."""
    package = find_spec("sklearn")
    assert package is not None
    assert package.origin is not None
    file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if file.is_file():
        return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits  # a version that keeps it elsewhere

    pixels, labels = cast("tuple[np.ndarray, np.ndarray]", load_digits(return_X_y=True))
    return np.column_stack([pixels, labels])


def _synthetic(data: Synthetic) -> RawData:
    """Inputs x ~ N(0, I); y = argmax V(relu(Wx) - E relu(Wx)), centred so that no class wins everywhere."""
    weights = stream(data.teacher_seed, "teacher")
    hidden = torch.randn(data.features, TEACHER_WIDTH, generator=weights) / data.features**0.5
    output = torch.randn(TEACHER_WIDTH, data.classes, generator=weights)
    expected = hidden.norm(dim=0) / (2 * torch.pi) ** 0.5  # of relu(z) with z ~ N(0, |w|²)

    def draw(part: str, size: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(size, data.features, generator=stream(data.teacher_seed, part))
        return x, (((x @ hidden).relu() - expected) @ output).argmax(1)

    train, test = draw("train", data.train_size), draw("test", data.test_size)
    return RawData(*train, *test, classes=data.classes, divisor=1.0)


# --- torchvision's data sets --------------------------------------------------------------------


@lru_cache(maxsize=1)
def _downloaded(name: str, root: str) -> RawData:
    import torchvision.datasets

    family: Any = getattr(torchvision.datasets, TORCHVISION[name])
    try:
        folder = Path(root).expanduser()
        with contextlib.suppress(Exception):  # absent or damaged: both are cured by fetching
            return _read(family, folder)
        _fetch(family, folder)
        return _read(family, folder)
    # Bad networks, disks and archives raise nearly everything, unpickling included.
    except Exception as error:
        raise _unavailable(name, family, root, error) from error


def _read(family: Any, folder: Path) -> RawData:
    """Both halves of a data set that lies in `folder`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CIFAR's old pickles make NumPy grumble
        halves = [family(folder, train=train, download=False) for train in (True, False)]
    arrays: list[Tensor] = []
    for half in halves:
        x, y = torch.as_tensor(half.data), torch.as_tensor(half.targets)
        if len(x) != len(y):
            raise ValueError(f"{len(x)} images, but {len(y)} labels")
        arrays += [x.unsqueeze(1) if x.ndim == 3 else x.permute(0, 3, 1, 2).contiguous(), y.long()]
    return RawData(*arrays, classes=len(halves[0].classes), divisor=255.0)


def _fetch(family: Any, folder: Path) -> None:
    """Download and unpack in a scratch folder, then move file by file.

    So a failure leaves nothing behind, and processes that start together never read half a file.
    """
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as scratch, _quiet_and_patient():
            for archive in _intact(family, folder):  # put there by hand: torchvision only unpacks them
                link = Path(scratch) / archive
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to((folder / archive).resolve())
            family(scratch, train=True, download=True)
            for file in [p for p in Path(scratch).rglob("*") if p.is_file() and not p.is_symlink()]:
                place = folder / file.relative_to(scratch)
                place.parent.mkdir(parents=True, exist_ok=True)
                file.replace(place)
    finally:
        for empty in missing:  # innermost first; one that holds something stays
            with contextlib.suppress(OSError):
                empty.rmdir()


@contextlib.contextmanager
def _quiet_and_patient() -> Iterator[None]:
    """Keep stdout for results, and do not wait for ever where a firewall swallows packets."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        socket.setdefaulttimeout(before)


def _archives(family: Any) -> list[tuple[str, str]]:
    """The files that torchvision downloads, below its root, each with its md5."""
    if hasattr(family, "resources"):
        return [(f"{family.__name__}/raw/{file}", md5) for file, md5 in family.resources]
    return [(family.filename, family.tgz_md5)]


def _intact(family: Any, folder: Path) -> list[str]:
    """Those archives that lie in `folder` with the right checksum."""
    from torchvision.datasets.utils import check_integrity

    return [archive for archive, md5 in _archives(family) if check_integrity(folder / archive, md5)]


def _unavailable(name: str, family: Any, root: str, error: Exception) -> ConfigError:
    folder = Path(os.path.expanduser(root))  # noqa: PTH111 (Path's own raises where there is no home)
    archives = [archive for archive, _ in _archives(family)]
    reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].rstrip(".")
    with contextlib.suppress(OSError):
        intact = _intact(family, folder)
        if damaged := [a for a in archives if (folder / a).is_file() and a not in intact]:
            reason = f"{', '.join(damaged)} there is damaged, and {reason}"
    return ConfigError(
        "data.root",
        f"cannot get {name} into {folder}: {reason}",
        hint=f"Without a network, put {', '.join(archives)} there; data=digits needs no download.",
    )


# --- the user's own arrays ----------------------------------------------------------------------


def _users(path: str) -> RawData:
    names = ("x_train", "y_train", "x_test", "y_test")
    try:
        # Opened here, since NumPy leaves a damaged file open.
        with Path(path).expanduser().open("rb") as stored, np.load(stored, allow_pickle=False) as file:
            if absent := [name for name in names if name not in file.files]:
                raise _malformed(path, f"{', '.join(absent)} is missing")
            found = {name: file[name] for name in names}
    except ConfigError:
        raise
    except FileNotFoundError:
        raise ConfigError("data.path", f"there is no file {path}") from None
    # A .npy opens as an array, which is no context manager (TypeError); arrays of objects are ValueErrors.
    except (OSError, RuntimeError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _malformed(path, "this is not a readable .npz of plain arrays") from error
    x_train, x_test = (_inputs(path, name, found[name]) for name in ("x_train", "x_test"))
    y_train, y_test = (_labels(path, name, found[name]) for name in ("y_train", "y_test"))
    for part, x, y in (("train", x_train, y_train), ("test", x_test, y_test)):
        if len(x) != len(y):
            raise _malformed(path, f"x_{part} holds {len(x)} inputs, but y_{part} {len(y)} labels")
    if x_train.shape[1:] != x_test.shape[1:] or x_train.dtype != x_test.dtype:
        train, test = (f"{tuple(x.shape[1:])} {x.dtype}" for x in (found["x_train"], found["x_test"]))
        raise _malformed(path, f"an input of x_train is {train}, but of x_test {test}")
    classes = int(max(y_train.max(), y_test.max())) + 1
    return RawData(x_train, y_train, x_test, y_test, classes, 255.0 if x_train.dtype == torch.uint8 else 1.0)


def _inputs(path: str, name: str, x: np.ndarray) -> Tensor:
    """(N, F) as it is; images as (N, C, H, W)."""
    if x.ndim not in (2, 3, 4) or x.size == 0:
        raise _malformed(path, f"{name} has shape {x.shape}, not (N, C, H, W), (N, H, W) or (N, F)")
    if x.dtype != np.uint8 and x.dtype.kind != "f":
        raise _malformed(path, f"{name} is {x.dtype}, not uint8 or float", "Convert it with astype.")
    if x.dtype != np.uint8:
        with np.errstate(over="ignore"):
            x = x.astype(np.float32)
        if not np.isfinite(x).all():
            raise _malformed(path, f"{name} holds NaN or infinity in float32")
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[3] in (1, 3) and x.shape[1] not in (1, 3):
        x = x.transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(x))


def _labels(path: str, name: str, y: np.ndarray) -> Tensor:
    """(N,) whole numbers from 0."""
    if y.ndim != 1 or y.size == 0:
        raise _malformed(path, f"{name} has shape {y.shape}, not (N,)")
    if y.dtype.kind not in "biuf" or not ((y >= 0) & (y < 2**31) & (y == np.floor(y))).all():
        raise _malformed(path, f"{name} must hold whole numbers from 0")
    if y.max() >= MOST_CLASSES:
        row = int(y.argmax())
        raise _malformed(
            path,
            f"{name} holds the label {int(y[row]):,} in row {row:,}, for a network with as many outputs",
            f"Number the classes from 0; there can be {MOST_CLASSES:,}.",
        )
    return torch.from_numpy(y.astype(np.int64))


def _malformed(path: str, problem: str, hint: str = "") -> ConfigError:
    return ConfigError("data.path", f"{path}: {problem}", hint=hint)
