"""Sign flipping: start without dead units on the data (after Rister & Rubin 2020, arXiv 2007.06192).

Layer by layer, the weights and bias of every unit that is positive on fewer than half of the alive inputs are
negated. An input is alive at a layer if it arrives there with a non-zero value. With zero biases, an input
that closes all gates of a layer stays zero from there on, and says nothing about later units.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.recording.batches import preserve_state
from harness.training.models.wiring import feeds

ROUNDS = 5  # largest number of rounds for a recurrent cell


class _Tally:
    """Forward hook on a feeding layer that counts alive inputs, and on how many each unit is positive."""

    def __init__(self) -> None:
        self.calls = 0
        self.alive: Tensor | int = 0  # ()
        self.positive: Tensor | int = 0  # (units,)

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...], z: Tensor) -> None:
        alive = alive_inputs(layer, inputs[0])
        units_last = z.movedim(unit_axis(z), -1)
        self.calls += 1
        self.alive = self.alive + alive.sum()
        self.positive = self.positive + ((units_last > 0) & alive.unsqueeze(-1)).flatten(0, -2).sum(0)


@torch.no_grad()
def sign_flip(model: nn.Module, sample: Tensor) -> None:
    """Negate (w, b), or (γ, β) of a norm, of every feeding unit that is mostly negative, in place.

    Afterwards every such unit is positive on at least half of the alive inputs (unless it is exactly 0
    there). Positions of an image count as inputs, as everywhere in the harness. The pass runs in training
    mode, as in training, and does not change running statistics.

    Two limits: a pre-activation that is a residual sum stays, since negating one summand does not negate the
    sum. A recurrent cell feeds itself, so negating a unit does not simply negate its later steps; up to five
    rounds negate the units that are still dead, without a guarantee.

    Args:
        model: a network whose blocks declare `feeds`.
        sample: inputs (N, *shape).

    Example:
        >>> from harness.config import compose
        >>> from harness.training.models import build
        >>> model = build(compose(["model.depth=1", "model.width=2"]), (1,), 1)
        >>> _ = nn.init.constant_(model.layers[0].linear.weight, -1.0)
        >>> _ = nn.init.zeros_(model.layers[0].linear.bias)
        >>> sign_flip(model, torch.ones(5, 1))
        >>> model.layers[0].linear.weight.flatten().tolist()
        [1.0, 1.0]
    """
    first = next(model.parameters())
    sample = sample.to(first.device, first.dtype)
    was_training = model.training
    with preserve_state(model):
        model.train()
        for feed in feeds(model):
            if not feed.summed:
                _turn(model, model.get_submodule(feed.layer), sample)
        model.train(was_training)


def _turn(model: nn.Module, layer: nn.Module, sample: Tensor) -> None:
    for attempt in range(ROUNDS):
        tally = _Tally()
        with layer.register_forward_hook(tally):
            model(sample)
        positive = torch.as_tensor(tally.positive)
        turned = 2 * positive < tally.alive if attempt == 0 else positive == 0
        sign = 1 - 2 * turned.to(sample.dtype)
        for parameter in layer.parameters(recurse=False):  # weight (units, ...) and bias (units,)
            parameter.mul_(sign.view(-1, *[1] * (parameter.dim() - 1)))
        if tally.calls == 1 or not turned.any():
            return


def unit_axis(z: Tensor) -> int:
    """Axis of the units: 1 for images (N, C, H, W), otherwise the last.

    >>> unit_axis(torch.zeros(2, 3, 4, 4)), unit_axis(torch.zeros(2, 3))
    (1, -1)
    """
    return 1 if z.dim() == 4 else -1


def alive_inputs(layer: nn.Module, x: Tensor) -> Tensor:
    """Boolean mask of the inputs (positions) of a layer that are not all zero: x without its unit axis.

    A position of a convolution reads its whole window.

    Example:
        >>> alive_inputs(nn.Linear(2, 3), torch.tensor([[0.0, 0.0], [0.0, -1.0]])).tolist()
        [False, True]
    """
    size = x.abs().amax(unit_axis(x))
    if isinstance(layer, nn.Conv2d):
        assert not isinstance(layer.padding, str), "padding in words is not used here"
        size = F.max_pool2d(size.unsqueeze(1), layer.kernel_size, layer.stride, layer.padding).squeeze(1)
    return size > 0
