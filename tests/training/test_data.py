"""The data set of a run, against slow code that treats one input at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_data import CPU, dataset, epoch_of, made_up

from harness.config import ConfigError, compose
from harness.training.data import Dataset, load, long_tail, noisy_labels
from harness.training.sources import RawData

# --- normalisation ------------------------------------------------------------------------------


def slowly_normalised(
    raw: RawData, x: torch.Tensor, standardise: bool, negate: bool, scale: float, shift: float
):
    train, out = raw.x_train.double().numpy() / raw.divisor, x.double().numpy() / raw.divisor
    if standardise:
        for channel in range(train.shape[1]) if train.ndim == 4 else [slice(None)]:
            out[:, channel] = (out[:, channel] - train[:, channel].mean()) / train[:, channel].std()
    return scale * (-out if negate else out) + shift


@settings(max_examples=40, deadline=None)
@given(
    shape=st.sampled_from([(3, 5, 4), (1, 3, 3), (7,), (1,)]),
    dtype=st.sampled_from([torch.uint8, torch.float32]),
    standardise=st.booleans(),
    negate=st.booleans(),
    scale=st.sampled_from([0.5, 1.0, 3.0]),
    shift=st.floats(-5, 5, width=16),
)
def test_divide_standardise_negate_scale_shift(shape, dtype, standardise, negate, scale, shift):
    raw = made_up(shape, dtype=dtype)
    overrides = (f"standardise={standardise}", f"negate={negate}", f"scale={scale}", f"shift={shift}")
    data = dataset(raw, *overrides, dtype=torch.float64)
    x = torch.cat([x for x, _ in data.test_batches(7)])
    expected = slowly_normalised(raw, raw.x_test, standardise, negate, scale, shift)
    assert x.dtype == torch.float64
    np.testing.assert_allclose(x.numpy(), expected, rtol=1e-9, atol=1e-9)
    single = torch.cat([x for x, _ in dataset(raw, *overrides).test_batches()])
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_moments_are_those_of_the_training_inputs_kept():
    data = dataset(
        made_up(train=2500), "subset=1500", "standardise=true", batch_size=1500, dtype=torch.float64
    )
    x, _ = epoch_of(data)
    np.testing.assert_allclose(x.mean((0, 2, 3)).numpy(), 0, atol=1e-12)
    np.testing.assert_allclose(x.std((0, 2, 3), correction=0).numpy(), 1, atol=1e-12)


def test_a_constant_channel_is_only_centred():
    raw = made_up(dtype=torch.float32)
    raw.x_train[:, 1] = raw.x_test[:, 1] = 0.1
    for x, _ in dataset(raw, "standardise=true").test_batches():
        assert x.isfinite().all()
        assert x[:, 1].abs().max() < 1e-6


def test_inputs_far_from_zero_keep_their_digits():
    raw = made_up((4,), dtype=torch.float32)
    far = raw._replace(x_train=raw.x_train + 1e5, x_test=raw.x_test + 1e5)
    (x, _), *_ = dataset(far, "standardise=true").test_batches()
    expected = slowly_normalised(far, far.x_test, True, False, 1, 0)
    np.testing.assert_allclose(x.numpy(), expected, atol=2e-3)  # what float32 resolves at 1e5, over std 3


def test_bfloat16_is_rounded_once():
    raw = made_up()
    pairs = zip(dataset(raw, dtype=torch.bfloat16).test_batches(), dataset(raw).test_batches(), strict=True)
    for (half, _), (single, _) in pairs:
        assert torch.equal(half, single.bfloat16())


@pytest.mark.parametrize("overrides", [("standardise=false",), ("augment=true", "negate=true")])
def test_the_stored_arrays_are_never_written(overrides):
    raw = made_up((1, 5, 5), dtype=torch.float32)
    before = [t.clone() for t in raw[:4]]
    data = dataset(raw, *overrides, "label_noise=0.5")
    for x, _ in (data.batch(0, 0), *data.test_batches(), *data.probe_batches()):
        x.zero_()
    assert all(torch.equal(a, b) for a, b in zip(raw[:4], before, strict=True))


# --- batches ------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 70), batch_size=st.integers(1, 90), epoch=st.integers(0, 3))
def test_an_epoch_is_a_permutation_without_its_incomplete_batch(size, batch_size, epoch):
    raw = made_up((2,), train=size, dtype=torch.float32)
    data = dataset(raw, "standardise=false", batch_size=batch_size)
    x, y = epoch_of(data, epoch)
    assert data.steps_per_epoch == max(1, size // batch_size)
    assert len(x) == data.steps_per_epoch * min(batch_size, size)
    assert sorted(data.order(epoch).tolist()) == list(range(size))
    for row, place in enumerate(data.order(epoch).tolist()[: len(x)]):
        assert torch.equal(x[row], raw.x_train[place])
        assert y[row] == raw.y_train[place]


@pytest.mark.parametrize("augment", [False, True])
def test_a_batch_depends_on_seed_epoch_and_step_only(augment):
    raw, option = made_up(), f"augment={augment}"
    used, fresh = dataset(raw, option), dataset(raw, option)
    for epoch in range(3):
        epoch_of(used, epoch)
    assert all(torch.equal(a, b) for a, b in zip(used.batch(1, 2), fresh.batch(1, 2), strict=True))
    assert not torch.equal(fresh.batch(1, 2)[0], fresh.batch(2, 2)[0])
    assert not torch.equal(fresh.batch(1, 2)[0], dataset(raw, option, seed=1).batch(1, 2)[0])


@pytest.mark.parametrize("step", [-1, 3])
def test_no_such_step(step):
    with pytest.raises(IndexError, match="of an epoch of 3"):
        dataset(made_up()).batch(0, step)


def test_padding_is_black_and_held_out_inputs_are_not_augmented():
    raw = made_up((3, 8, 8))
    raw.x_train.fill_(200)
    plain, augmented = (dataset(raw, f"augment={a}", "standardise=false") for a in (False, True))
    assert set(augmented.batch(0, 0)[0].unique().tolist()) == {0.0, float(np.float32(200) / np.float32(255))}
    for a, b in zip(plain.test_batches(), augmented.test_batches(), strict=True):
        assert torch.equal(a[0], b[0])


def test_only_images_can_be_augmented():
    with pytest.raises(ConfigError, match=r"^data\.augment: .* not images"):
        dataset(made_up((9,)), "augment=true")


def test_held_out_batches():
    raw = made_up((2,), test=25, dtype=torch.float32)
    data = dataset(raw, "standardise=false", "probe_size=10")
    tests, probe = list(data.test_batches(10)), list(data.probe_batches(4))
    assert [len(x) for x, _ in tests] == [10, 10, 5]
    assert torch.equal(torch.cat([x for x, _ in tests]), raw.x_test)
    assert torch.equal(torch.cat([y for _, y in tests]), raw.y_test)
    assert [len(x) for x, _ in probe] == [4, 4, 2]
    for x, y in probe:
        for one, label in zip(x, y, strict=True):
            place = int((raw.x_test == one).all(1).nonzero())
            assert raw.y_test[place] == label


def test_the_probe_is_the_same_for_every_seed_and_grows_at_its_end():
    raw = made_up((2,), dtype=torch.float32)

    def probe(seed: int, size: int) -> torch.Tensor:
        return torch.cat([x for x, _ in dataset(raw, f"probe_size={size}", seed=seed).probe_batches()])

    assert torch.equal(probe(0, 15), probe(7, 15))
    assert torch.equal(probe(0, 15)[:5], probe(0, 5))
    assert len(probe(0, 2000)) == len(raw.x_test)


def test_load_gives_what_the_specification_says():
    spec = compose(["train.batch_size=64", "data.subset=200", "data.probe_size=50", "seed=3"])
    data = load(spec, CPU, torch.float32)
    assert (data.shape, data.classes, data.size, data.batch_size) == ((1, 8, 8), 10, 200, 64)
    assert data.steps_per_epoch == 3
    assert sum(len(y) for _, y in data.probe_batches()) == 50
    assert sum(len(y) for _, y in data.test_batches()) == 360


# --- which inputs -------------------------------------------------------------------------------


def test_a_subset_is_fixed_and_nested():
    raw = made_up((1,), train=256)
    raw.x_train[:, 0] = torch.arange(256)

    def members(seed: int, size: int) -> set[float]:
        data = dataset(raw, f"subset={size}", "standardise=false", seed=seed, batch_size=size)
        return set((epoch_of(data)[0] * 255).round().view(-1).tolist())

    assert members(0, 100) == members(5, 100)
    assert members(0, 40) < members(0, 100)
    assert len(members(0, 256)) == 256
    with pytest.raises(ConfigError, match=r"data\.subset: expected at most 256.*got 257"):
        dataset(raw, "subset=257")


def test_the_long_tail_is_that_of_the_paper():
    y = torch.arange(10).repeat(5000)  # CIFAR-10's training labels, but for their order
    kept = long_tail(y, 100)
    assert y[kept].bincount().tolist() == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert torch.equal(kept, kept.unique())


@settings(max_examples=50, deadline=None)
@given(labels=st.lists(st.integers(0, 6), min_size=1, max_size=200), ratio=st.floats(1, 500))
def test_the_long_tail_takes_what_unequal_classes_can_give(labels, ratio):
    y = torch.tensor(labels)
    have = {c: labels.count(c) for c in sorted(set(labels))}
    kept = y[long_tail(y, ratio)].tolist()
    if ratio == 1:
        assert kept == labels
        return
    counts = [kept.count(c) for c in have]
    assert all(1 <= n <= have[c] for c, n in zip(have, counts, strict=True))
    assert counts == sorted(counts, reverse=True)
    ideal = [ratio ** (-k / max(1, len(have) - 1)) for k in range(len(have))]
    largest = min(n / share for n, share in zip(have.values(), ideal, strict=True))
    for n, share in zip(counts, ideal, strict=True):
        assert n == 1 or abs(n - largest * share) < 1.001


def test_the_long_tail_does_not_depend_on_the_seed_and_comes_after_the_subset():
    raw = made_up((1,), train=200)
    raw.x_train[:, 0] = torch.arange(200)
    sets = []
    for seed in (0, 9):
        data = dataset(raw, "subset=150", "imbalance=4", "standardise=false", seed=seed, batch_size=1)
        sets.append(sorted(epoch_of(data)[0].view(-1).tolist()))
    whole = epoch_of(dataset(raw, "subset=150", "standardise=false", batch_size=1))[0].view(-1).tolist()
    assert sets[0] == sets[1]
    assert set(sets[0]) < set(whole)


# --- which labels -------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 300), classes=st.integers(2, 12), share=st.floats(0, 1), seed=st.integers(0, 2**32 - 1)
)
def test_exactly_the_share_of_labels_is_replaced(n, classes, share, seed):
    y = torch.arange(n) % classes
    noisy = noisy_labels(y, share, classes, seed)
    assert int((noisy != y).sum()) == round(share * n)
    assert bool(((noisy >= 0) & (noisy < classes)).all())
    more = noisy_labels(y, 1.0, classes, seed)
    assert torch.equal(more[noisy != y], noisy[noisy != y])


def test_noise_is_uniform_over_the_other_classes():
    counts = noisy_labels(torch.full((30_000,), 2), 1.0, 4, seed=0).bincount(minlength=4)
    assert counts[2] == 0
    assert (counts[[0, 1, 3]] - 10_000).abs().max() < 400


def test_noise_follows_the_seed_and_spares_held_out_labels():
    raw = made_up()
    data, other = (dataset(raw, "label_noise=0.5", seed=seed) for seed in (0, 1))
    assert not torch.equal(data.labels(0), other.labels(0))
    assert int((data.labels(0) != raw.y_train).sum()) == 30
    assert torch.equal(torch.cat([y for _, y in data.test_batches()]), raw.y_test)


def test_noise_needs_a_second_class():
    with pytest.raises(ConfigError, match=r"data\.label_noise: .* only one class"):
        dataset(made_up(classes=1), "label_noise=0.5")


# --- devices ------------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_devices_give_the_same_batches():
    raw = made_up((3, 8, 8), train=500)
    options = compose(["data=cifar10", "data.augment=true", "data.label_noise=0.3", "data.imbalance=5"]).data
    cpu, gpu = (
        Dataset(raw, options, 0, 32, device=torch.device(d), dtype=torch.float32) for d in ("cpu", "cuda")
    )
    for here, there in (
        (cpu.batch(1, 0), gpu.batch(1, 0)),
        (next(cpu.probe_batches()), next(gpu.probe_batches())),
    ):
        assert there[0].is_cuda
        assert torch.equal(here[1], there[1].cpu())
        torch.testing.assert_close(here[0], there[0].cpu())
