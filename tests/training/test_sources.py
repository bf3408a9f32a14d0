"""Where arrays come from: the user's files and their faults, downloads and their failures; no network."""

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
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.config import ConfigError, compose
from harness.training.sources import RawData, load_arrays


def arrays(*overrides: str) -> RawData:
    return load_arrays(compose(list(overrides)).data)


# --- built in -----------------------------------------------------------------------------------


def test_digits_are_split_by_class_and_hold_every_input():
    raw = arrays("data=digits")
    assert raw.x_train.dtype == torch.uint8
    assert tuple(raw.x_train.shape) == (1437, 1, 8, 8)
    assert tuple(raw.x_test.shape) == (360, 1, 8, 8)
    assert int(raw.x_train.max()) == raw.divisor == 16
    counts = torch.stack([raw.y_train.bincount(), raw.y_test.bincount()])
    assert (counts[1] - counts.sum(0) / 5).abs().max() < 1

    from sklearn.datasets import load_digits

    known: Any = load_digits(return_X_y=True)
    ours = [[*x, y] for x, y in zip(raw.x_train.view(-1, 64).tolist(), raw.y_train.tolist(), strict=True)]
    ours += [[*x, y] for x, y in zip(raw.x_test.view(-1, 64).tolist(), raw.y_test.tolist(), strict=True)]
    assert sorted(ours) == sorted([*x, y] for x, y in zip(*(part.tolist() for part in known), strict=True))


def test_synthetic_is_gaussian_labelled_by_a_teacher_that_uses_every_class():
    raw = arrays("data=synthetic", "data.features=20", "data.classes=7", "data.train_size=5000")
    assert raw.x_train.dtype == torch.float32
    assert tuple(raw.x_train.shape) == (5000, 20)
    assert (raw.classes, raw.divisor) == (7, 1.0)
    assert raw.x_train.mean().abs() < 0.02
    assert (raw.x_train.T.cov() - torch.eye(20)).abs().max() < 0.12
    assert raw.y_train.bincount(minlength=7).min() > 5000 / 7 / 4


def test_synthetic_follows_the_teachers_seed_only():
    one, same, other = (arrays("data=synthetic", *o) for o in ([], ["seed=5"], ["data.teacher_seed=1"]))
    assert all(torch.equal(a, b) for a, b in zip(one[:4], same[:4], strict=True))
    assert not torch.equal(one.x_train, other.x_train)
    assert not torch.equal(one.x_train[:2000], one.x_test)


# --- the user's own -----------------------------------------------------------------------------


def saved(folder: Path, **changes: object) -> str:
    content: dict[str, object] = {
        "x_train": np.zeros((6, 1, 4, 5), np.uint8),
        "y_train": np.arange(6) % 3,
        "x_test": np.zeros((3, 1, 4, 5), np.uint8),
        "y_test": np.arange(3),
    }
    content |= changes
    kept: dict[str, Any] = {
        name: np.asarray(values) for name, values in content.items() if values is not None
    }
    np.savez(folder / "my.npz", **kept)
    return str(folder / "my.npz")


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        ((4, 5), (1, 4, 5)),
        ((1, 4, 5), (1, 4, 5)),
        ((3, 4, 5), (3, 4, 5)),
        ((6, 4, 5), (6, 4, 5)),
        ((4, 5, 1), (1, 4, 5)),
        ((4, 5, 3), (3, 4, 5)),
        ((3, 5, 3), (3, 5, 3)),  # either way round: the documented one
        ((7,), (7,)),
    ],
)
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "float16", ">f4"])
def test_shapes_and_types_that_are_read(tmp_path, stored, read, dtype):
    x = np.random.default_rng(0).integers(0, 100, (9, *stored)).astype(dtype)
    raw = arrays("data=arrays", f"data.path={saved(tmp_path, x_train=x[:6], x_test=x[6:])}")
    assert tuple(raw.x_train.shape) == (6, *read)
    assert raw.x_train.dtype == (torch.uint8 if dtype == "uint8" else torch.float32)
    assert raw.divisor == (255 if dtype == "uint8" else 1)
    assert (raw.classes, raw.y_train.dtype, raw.y_train.tolist()) == (3, torch.int64, [0, 1, 2, 0, 1, 2])
    last_to_first = stored != read and len(stored) == 3
    expected = np.moveaxis(x, 3, 1) if last_to_first else x
    assert np.array_equal(torch.cat([raw.x_train, raw.x_test]).numpy(), expected.reshape(9, *read))


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float64", "bool"])
def test_labels_may_have_any_type_of_whole_numbers(tmp_path, dtype):
    y = np.array([0, 1, 1, 0, 1, 0]).astype(dtype)
    raw = arrays("data=arrays", f"data.path={saved(tmp_path, y_train=y, y_test=y[:3])}")
    assert raw.y_train.tolist() == [0, 1, 1, 0, 1, 0]
    assert raw.classes == 2


X = np.zeros((6, 1, 4, 5), np.uint8)
MALFORMED = {
    "y_test is missing": {"y_test": None},
    "x_train, x_test is missing": {"x_train": None, "x_test": None},
    "x_train has shape (6,)": {"x_train": np.zeros(6, np.uint8)},
    "x_test has shape (1, 1, 1, 1, 1)": {"x_test": np.zeros((1, 1, 1, 1, 1), np.uint8)},
    "x_train has shape ()": {"x_train": 3},
    "x_train has shape (0, 1, 4, 5)": {"x_train": X[:0], "y_train": np.arange(0)},
    "x_test has shape (3, 0)": {"x_test": np.zeros((3, 0))},
    "x_train is int64, not uint8 or float": {"x_train": X.astype(np.int64)},
    "x_train is complex64": {"x_train": X.astype(np.complex64)},
    "x_train holds NaN": {"x_train": np.full(X.shape, np.nan), "x_test": np.zeros((3, 1, 4, 5))},
    "x_test holds NaN or infinity": {"x_train": X.astype(float), "x_test": np.full((3, 1, 4, 5), 1e300)},
    "y_train has shape (6, 1)": {"y_train": np.zeros((6, 1), int)},
    "y_train must hold whole numbers": {"y_train": np.arange(6) / 2},
    "y_train holds the label 10,000,000 in row 4": {"y_train": np.array([0, 1, 0, 1, 10_000_000, 1])},
    "y_test holds the label 100,000 in row 0": {"y_test": np.array([100_000, 1, 0])},
    "y_test must hold whole numbers": {"y_test": np.array([0, -1, 1])},
    "y_test must hold whole numbers from 0": {"y_test": np.array([0, np.nan, 1])},
    "y_train must hold": {"y_train": np.array(list("abcdef"))},
    "x_train holds 6 inputs, but y_train 5 labels": {"y_train": np.arange(5)},
    "x_test holds 2 inputs, but y_test 3 labels": {"x_test": X[:2]},
    "an input of x_train is (1, 4, 5) uint8, but of x_test (1, 4, 4) uint8": {"x_test": X[:3, :, :, 1:]},
    "but of x_test (1, 4, 5) float64": {"x_test": X[:3].astype(float)},
    "not a readable .npz": {"x_train": np.array([{}] * 6)},
}


@pytest.mark.parametrize("said", MALFORMED)
def test_malformed_files_are_refused(tmp_path, said):
    path = saved(tmp_path, **MALFORMED[said])
    with pytest.raises(ConfigError) as refused:
        arrays("data=arrays", f"data.path={path}")
    assert refused.value.key == "data.path"
    assert str(refused.value).startswith(f"data.path: {path}: ")
    assert said in str(refused.value)


def test_files_that_are_no_npz_are_refused(tmp_path):
    whole = Path(saved(tmp_path)).read_bytes()
    np.save(tmp_path / "one.npy", X)
    (tmp_path / "text.npz").write_text("x_train = 3")
    (tmp_path / "empty.npz").touch()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "flipped.npz").write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    for name in ("one.npy", "text.npz", "empty.npz", "cut.npz", "flipped.npz", ".", "absent.npz"):
        with pytest.raises(ConfigError, match=r"^data\.path: .*(not a readable|there is no file)"):
            arrays("data=arrays", f"data.path={tmp_path / name}")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_damage_to_a_file_escapes_as_another_error(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damage")
    path = Path(saved(folder))
    whole = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=4)):
        whole[place] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    try:
        arrays("data=arrays", f"data.path={path}")
    except ConfigError as refused:
        assert refused.key == "data.path"  # noqa: PT017 (most damage is refused, some is harmless)


# --- downloads ----------------------------------------------------------------------------------


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


def test_an_unknown_name():
    options = compose(["data=mnist"]).data
    options.name = "imagenet"
    with pytest.raises(ConfigError, match="expected one of digits, mnist"):
        load_arrays(options)
