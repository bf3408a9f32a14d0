"""Sources of data sets: handwritten digits, torchvision's downloads, a random teacher, or the user.

The arrays do not depend on the run's seed, so every arm of a sweep sees the same inputs.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import tempfile
import warnings
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from harness.config.errors import ConfigError
from harness.config.schema import Arrays, CustomData, Data, Synthetic
from harness.training.own_data import RawData, made_arrays, stored_arrays
from harness.training.randomness import stream

#: data=… -> the class of torchvision.datasets.
TORCHVISION = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "kmnist": "KMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
}
PATIENCE = 30.0  # seconds without a response after which a download fails
TEACHER_WIDTH = 64


def load_arrays(data: Data) -> RawData:
    """Read a data set, downloading it on first use. Treat the tensors as read-only: runs share them.

    Raises:
        ConfigError: the download failed (`data.root`), the user's file is malformed (`data.path`), or the
            user's function does not return data (`data.target`).

    Example:
        >>> from harness.config import compose
        >>> raw = load_arrays(compose(["data=digits"]).data)
        >>> tuple(raw.x_train.shape), len(raw.x_test), raw.divisor
        ((1437, 1, 8, 8), 360, 16.0)
    """
    if isinstance(data, Synthetic):
        return _synthetic(data)
    if isinstance(data, Arrays):
        return stored_arrays(data.path)
    if isinstance(data, CustomData):
        return made_arrays(data)
    if data.name == "digits":
        return _digits()
    if data.name in TORCHVISION:
        return _downloaded(data.name, data.root)
    raise ConfigError("data", expected=f"one of digits, {', '.join(TORCHVISION)}", came=data.name)


@lru_cache(maxsize=1)
def _digits() -> RawData:
    """UCI's handwritten digits from scikit-learn; every fifth input of each class is a test input."""
    table = _digits_table()
    x = torch.from_numpy(table[:, :-1]).to(torch.uint8).view(-1, 1, 8, 8)
    y = torch.from_numpy(table[:, -1]).long()
    shuffled = torch.randperm(len(y), generator=stream(0, "digits"))
    by_class = shuffled[y[shuffled].argsort(stable=True)]
    tests = torch.zeros(len(y), dtype=torch.bool)
    tests[by_class[::5]] = True
    return RawData(x[~tests], y[~tests], x[tests], y[tests], classes=10, divisor=16.0)


def _digits_table() -> np.ndarray:
    """Read pixels and label, (1797, 65), from scikit-learn's file, since importing it takes a second."""
    package = find_spec("sklearn")
    assert package is not None
    assert package.origin is not None
    file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if file.is_file():
        return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits  # for versions that store the file in another place

    pixels, labels = cast("tuple[np.ndarray, np.ndarray]", load_digits(return_X_y=True))
    return np.column_stack([pixels, labels])


def _synthetic(data: Synthetic) -> RawData:
    """Draw x ~ N(0, I) and y = argmax V(relu(Wx) - E relu(Wx)); centring keeps one class from dominating."""
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
        with contextlib.suppress(Exception):  # missing or damaged: download it
            return _read(family, folder)
        _fetch(family, folder)
        return _read(family, folder)
    # Bad networks, disks and archives can raise almost any exception, even from unpickling.
    except Exception as error:
        raise _unavailable(name, family, root, error) from error


def _read(family: Any, folder: Path) -> RawData:
    """Read both halves of a data set in `folder`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy warns about CIFAR's old pickles
        halves = [family(folder, train=train, download=False) for train in (True, False)]
    arrays: list[Tensor] = []
    for half in halves:
        x, y = torch.as_tensor(half.data), torch.as_tensor(half.targets)
        if len(x) != len(y):
            raise ValueError(f"{len(x)} images, but {len(y)} labels")
        arrays += [x.unsqueeze(1) if x.ndim == 3 else x.permute(0, 3, 1, 2).contiguous(), y.long()]
    return RawData(*arrays, classes=len(halves[0].classes), divisor=255.0)


def _fetch(family: Any, folder: Path) -> None:
    """Download and unpack in a temporary folder, then move file by file.

    A failure thus leaves nothing behind, and concurrent processes never read partial files.
    """
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as scratch, _quiet_and_patient():
            for archive in _intact(family, folder):  # already present: torchvision only unpacks them
                link = Path(scratch) / archive
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to((folder / archive).resolve())
            family(scratch, train=True, download=True)
            for file in [p for p in Path(scratch).rglob("*") if p.is_file() and not p.is_symlink()]:
                place = folder / file.relative_to(scratch)
                place.parent.mkdir(parents=True, exist_ok=True)
                file.replace(place)
    finally:
        for empty in missing:  # innermost first; rmdir fails for folders that are not empty
            with contextlib.suppress(OSError):
                empty.rmdir()


@contextlib.contextmanager
def _quiet_and_patient() -> Iterator[None]:
    """Redirect messages to stderr, and set a timeout in case a firewall drops packets."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        socket.setdefaulttimeout(before)


def _archives(family: Any) -> list[tuple[str, str]]:
    """Return the files that torchvision downloads, relative to its root, each with its md5."""
    if hasattr(family, "resources"):
        return [(f"{family.__name__}/raw/{file}", md5) for file, md5 in family.resources]
    return [(family.filename, family.tgz_md5)]


def _intact(family: Any, folder: Path) -> list[str]:
    """Return the archives in `folder` that have the right checksum."""
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
