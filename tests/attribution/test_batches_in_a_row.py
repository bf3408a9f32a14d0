"""A few bad batches in a row are no order of the inputs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small_trainings import diagnosed_by, inputs, plain
from torch import Tensor, nn

X, Y = inputs()
BAD: dict[str, Callable[[Tensor], Tensor]] = {
    "offset": lambda x: x + 60,
    "noise": lambda x: 100 * torch.randn_like(x),
    "scaled": lambda x: 60 * x,
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_three_bad_batches_in_a_row_are_bad_batches(bad: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    model = plain()

    def loss(step: int, rows: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(bad(X[rows]) if 80 <= step < 83 else X[rows]), Y[rows])

    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    found = diagnosed_by(model, loss, steps=160, optimizer=optimizer)
    assert found.label == "bad_batch", found
    assert "shuffled" not in found.text
