"""Where arrays come from: the user's files and their faults, downloads and their failures; no network."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from read_arrays import arrays

from harness.config import ConfigError, compose
from harness.training.sources import load_arrays


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


def test_an_unknown_name():
    options = compose(["data=mnist"]).data
    options.name = "imagenet"
    with pytest.raises(ConfigError, match="expected one of digits, mnist"):
        load_arrays(options)
