"""Data sets that are downloaded once, and what is said if they cannot be; no network."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from read_arrays import arrays

from harness.config import ConfigError


def idx(values: np.ndarray) -> bytes:
    """The format of MNIST's files, compressed."""
    header = struct.pack(f">{values.ndim + 1}i", 0x800 + values.ndim, *values.shape)
    return gzip.compress(header + values.astype(np.uint8).tobytes(), mtime=0)


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def mirror(tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder served on this machine: a toy MNIST and CIFAR-10 that torchvision takes for the real ones."""
    from torchvision.datasets import CIFAR10, MNIST

    folder = tmp_path / "mirror"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(folder)))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    url = f"http://127.0.0.1:{server.server_port}/"
    rng = np.random.default_rng(0)
    contents = {
        "train-images-idx3-ubyte.gz": idx(rng.integers(0, 256, (20, 28, 28))),
        "train-labels-idx1-ubyte.gz": idx(np.arange(20) % 10),
        "t10k-images-idx3-ubyte.gz": idx(rng.integers(0, 256, (10, 28, 28))),
        "t10k-labels-idx1-ubyte.gz": idx(np.arange(10)),
    }
    monkeypatch.setattr(MNIST, "mirrors", [url])
    monkeypatch.setattr(MNIST, "resources", [(name, md5(content)) for name, content in contents.items()])

    pixels = {"data": rng.integers(0, 256, (4, 3072), dtype=np.uint8), "labels": [3, 1, 4, 1]}
    members = {name: pickle.dumps(pixels) for name, _ in CIFAR10.train_list + CIFAR10.test_list}
    members["batches.meta"] = pickle.dumps({"label_names": list("abcdefghij")})
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(f"{CIFAR10.base_folder}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    contents[CIFAR10.filename] = buffer.getvalue()
    monkeypatch.setattr(CIFAR10, "url", url + CIFAR10.filename)
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(buffer.getvalue()))
    for parts in ("train_list", "test_list"):
        names = [name for name, _ in getattr(CIFAR10, parts)]
        monkeypatch.setattr(CIFAR10, parts, [[name, md5(members[name])] for name in names])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5(members["batches.meta"])})
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    serving = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    serving.start()
    yield folder
    server.shutdown()
    server.server_close()
    serving.join()


@pytest.fixture
def offline(mirror, monkeypatch) -> Path:
    """The same, but nothing answers."""
    from torchvision.datasets import CIFAR10, MNIST

    monkeypatch.setattr(MNIST, "mirrors", ["file:///nowhere/", "file:///nowhere/else/"])
    monkeypatch.setattr(CIFAR10, "url", "file:///nowhere/cifar.tar.gz")
    return mirror


def everything(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_mnist_is_downloaded_once(tmp_path, mirror, capsys):
    root = tmp_path / "new" / "cache"
    raw = arrays("data=mnist", f"data.root={root}")
    assert tuple(raw.x_train.shape) == (20, 1, 28, 28)
    assert (raw.x_train.dtype, raw.y_test.tolist()) == (torch.uint8, list(range(10)))
    assert (raw.classes, raw.divisor) == (10, 255)
    assert capsys.readouterr().out == ""
    assert all(name.startswith("MNIST/raw/") for name in everything(root))
    for file in mirror.iterdir():  # nothing left to download
        file.unlink()
    moved = root.rename(tmp_path / "moved")  # another key than the cached one
    again = arrays("data=mnist", f"data.root={moved}")
    assert all(torch.equal(a, b) for a, b in zip(raw[:4], again[:4], strict=True))


def test_cifar_is_downloaded_channels_first(tmp_path, mirror, capsys):
    raw = arrays("data=cifar10", f"data.root={tmp_path / 'cache'}")
    assert tuple(raw.x_train.shape) == (20, 3, 32, 32)
    assert raw.x_train.is_contiguous()
    assert raw.y_test.tolist() == [3, 1, 4, 1]
    with tarfile.open(mirror / "cifar-10-python.tar.gz") as tar:
        stored = tar.extractfile("cifar-10-batches-py/test_batch")
        assert stored is not None
        pixels = pickle.loads(stored.read())["data"]
    assert np.array_equal(raw.x_test.numpy(), pixels.reshape(4, 3, 32, 32))
    assert capsys.readouterr().out == ""


def test_files_put_there_by_hand_need_no_network(tmp_path, offline):
    folder = tmp_path / "cache" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for file in offline.glob("*ubyte.gz"):
        (folder / file.name).symlink_to(file)
    raw = arrays("data=mnist", f"data.root={tmp_path / 'cache'}")
    assert len(raw.x_train) == 20
    assert all((folder / file.name).is_symlink() for file in offline.glob("*ubyte.gz"))


@pytest.mark.parametrize(
    ("name", "file"),
    [("mnist", "MNIST/raw/train-images-idx3-ubyte.gz"), ("cifar10", "cifar-10-python.tar.gz")],
)
def test_without_a_network_one_error_says_what_to_do(tmp_path, offline, capsys, name, file):
    root = tmp_path / "new" / "cache"
    with pytest.raises(ConfigError) as refused:
        arrays(f"data={name}", f"data.root={root}")
    said = str(refused.value)
    assert refused.value.key == "data.root"
    assert all(part in said for part in (str(root), file, "nowhere", "data=digits"))
    assert "\n" not in said
    assert not (tmp_path / "new").exists()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "file"),
    [("mnist", "MNIST/raw/t10k-images-idx3-ubyte.gz"), ("cifar10", "cifar-10-python.tar.gz")],
)
def test_a_damaged_archive_is_named_and_left(tmp_path, offline, name, file):
    archive = tmp_path / "cache" / file
    archive.parent.mkdir(parents=True)
    archive.write_bytes((offline / archive.name).read_bytes()[:-9])
    before = everything(tmp_path / "cache")
    with pytest.raises(ConfigError, match=f"{file} there is damaged"):
        arrays(f"data={name}", f"data.root={tmp_path / 'cache'}")
    assert everything(tmp_path / "cache") == before


def test_a_half_unpacked_file_is_unpacked_again(tmp_path, mirror, offline):
    root = tmp_path / "cache"
    arrays("data=mnist", f"data.root={_filled(root, mirror)}")
    images = root / "MNIST" / "raw" / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:1000])
    assert len(arrays("data=mnist", f"data.root={root}/.").x_train) == 20


def _filled(root: Path, mirror: Path) -> Path:
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for file in mirror.glob("*ubyte.gz"):
        (folder / file.name).write_bytes(file.read_bytes())
    return root


def test_a_folder_that_cannot_be_made(tmp_path, mirror):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"^data\.root: cannot get mnist into .*file/cache"):
        arrays("data=mnist", f"data.root={tmp_path / 'file' / 'cache'}")
