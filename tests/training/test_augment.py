"""Crop and flip, against every crop of every image cut out one by one."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.training.augment import crop_and_flip


def crops(image: np.ndarray, padding: int) -> dict[bytes, tuple[int, int, bool]]:
    """Every crop of one (C, H, W) image: its bytes -> (top, left, mirrored)."""
    _, height, width = image.shape
    found = {}
    for mirrored in (False, True):
        padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
        for top in range(2 * padding + 1):
            for left in range(2 * padding + 1):
                crop = padded[:, top : top + height, left : left + width]
                crop = crop[:, :, ::-1] if mirrored else crop
                found[crop.tobytes()] = (top, left, mirrored)
    return found


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(3, 9), st.integers(3, 9)),
    padding=st.integers(0, 4),
    dtype=st.sampled_from([np.uint8, np.float32]),
    seed=st.integers(0, 2**31),
)
def test_every_image_becomes_a_crop_of_itself(shape, padding, dtype, seed):
    x = np.random.default_rng(seed).integers(1, 256, shape).astype(dtype)
    out = crop_and_flip(torch.from_numpy(x), torch.Generator().manual_seed(seed), padding).numpy()
    assert out.shape == x.shape
    assert out.dtype == dtype
    for before, after in zip(x, out, strict=True):
        assert after.tobytes() in crops(before, padding)


def test_all_offsets_and_mirrorings_are_equally_likely_and_drawn_per_image():
    image = np.random.default_rng(0).integers(1, 256, (1, 9, 9)).astype(np.uint8)
    known = crops(image, 4)
    assert len(known) == 162
    out = crop_and_flip(torch.from_numpy(image).expand(16200, 1, 9, 9), torch.Generator().manual_seed(0))
    drawn = [known[crop.tobytes()] for crop in out.numpy()]
    counts = np.array([drawn.count(which) for which in known.values()])
    assert ((counts - 100) ** 2 / 100).sum() < 225  # chi-square, 161 degrees of freedom: p = 0.0006


def test_the_same_generator_state_draws_the_same():
    x = torch.arange(2 * 3 * 64, dtype=torch.uint8).view(2, 3, 8, 8)
    first, again, other = (crop_and_flip(x, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_devices_agree():
    x = torch.randint(0, 256, (32, 3, 32, 32), dtype=torch.uint8)
    cpu, gpu = (crop_and_flip(x.to(d), torch.Generator().manual_seed(0)) for d in ("cpu", "cuda"))
    assert torch.equal(cpu, gpu.cpu())
