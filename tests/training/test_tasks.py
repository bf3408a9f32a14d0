"""New tasks in the middle of a training: labels that are dealt anew, pixels in another order."""

from __future__ import annotations

import pytest
import torch
from made_up_data import dataset, epoch_of, made_up

from harness.config import compose
from harness.training.tasks import new_tasks


def test_labels_are_reshuffled_every_few_epochs():
    raw = made_up()
    data = dataset(raw, "reshuffle_labels_every=2")
    labels = [data.labels(epoch) for epoch in range(6)]
    assert torch.equal(labels[0], raw.y_train)
    for first in (0, 2, 4):
        assert torch.equal(labels[first], labels[first + 1])
    for earlier, later in ((0, 2), (2, 4), (0, 4)):
        assert not torch.equal(labels[earlier], labels[later])
        assert torch.equal(labels[earlier].bincount(), labels[later].bincount())
    assert not torch.equal(labels[2], dataset(raw, "reshuffle_labels_every=2", seed=1).labels(2))
    for epoch in (3, 0):
        _, y = epoch_of(data, epoch)
        assert torch.equal(y, labels[epoch][data.order(epoch)[: len(y)]])


@pytest.mark.parametrize("shape", [(3, 4, 5), (12,)])
def test_pixels_take_a_new_order_every_few_epochs(shape: tuple[int, ...]):
    raw = made_up(shape)
    plain, data = dataset(raw), dataset(raw, "permute_inputs_every=2")
    other = dataset(raw, "permute_inputs_every=2", seed=1)
    orders = {}
    for epoch in (0, 1, 2, 3, 4):
        x, y = epoch_of(data, epoch)
        expected, labels = epoch_of(plain, epoch)
        assert torch.equal(y, labels)
        channels = shape[0] if len(shape) == 3 else 1
        flat, before = (v.reshape(len(v), channels, -1) for v in (x, expected))
        # each pixel of the task is one of the image, the same one in every channel and every input
        same = (flat[:, :, :, None] == before[:, :, None, :]).all(0).all(0)
        orders[epoch] = same.int().argmax(1)
        assert torch.equal(orders[epoch].sort().values, torch.arange(before.shape[2]))
        assert torch.equal(flat, before[:, :, orders[epoch]])
        for watched in ("probe_batches", "test_batches"):
            mixed = torch.cat([x for x, _ in getattr(data, watched)()]).flatten(2 if len(shape) == 3 else 1)
            still = torch.cat([x for x, _ in getattr(plain, watched)()]).flatten(2 if len(shape) == 3 else 1)
            assert torch.equal(mixed, still[..., orders[epoch]])
    assert torch.equal(orders[0], torch.arange(len(orders[0])))
    for first in (0, 2):
        assert torch.equal(orders[first], orders[first + 1])
        assert not torch.equal(orders[first], orders[first + 2])
    for one in (data, other):
        epoch_of(one, 2)
    assert not torch.equal(next(other.probe_batches())[0], next(data.probe_batches())[0])


def test_new_tasks_are_told_when_they_begin():
    options = compose(["data.reshuffle_labels_every=2", "data.permute_inputs_every=3"]).data
    found = [new_tasks(options, epoch) for epoch in range(7)]
    labels, inputs = "reshuffled_labels", "permuted_inputs"
    assert found == [[], [], [labels], [inputs], [labels], [], [labels, inputs]]
