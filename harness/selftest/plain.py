"""Plain nets: every kind of input and window that a multi-layer perceptron can have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from harness.selftest.case import Case, kill, normal, sequential, varying
from harness.selftest.truth import site


def mlp(activation: Callable[[], nn.Module] = nn.ReLU) -> Any:
    model = nn.Sequential(nn.Linear(6, 10), activation(), nn.Linear(10, 8), activation(), nn.Linear(8, 3))
    kill(model[0], 2, 7)
    kill(model[2], 0)
    return model


MLP_SITES = (site("1", "0", 10, 2, 7), site("3", "2", 8, 0))
MLP_REFERENCE = sequential({1: "1", 3: "3"})


def starved_mlp() -> nn.Sequential:
    """Everything behind the first activation is dead, so its live units receive no gradient."""
    model = mlp()
    kill(model[2], *range(8))
    return model


def with_gaps() -> list[Tensor]:
    """NaN and infinities that reach some units only (see `channelwise`)."""
    batches = normal(8, 6, 2)()
    batches[1][0, 0, 0] = float("nan")
    batches[1][1, 1, 1] = float("inf")
    batches[2][2, 1, 0] = -float("inf")
    batches[4][:, 2] = float("nan")
    return batches


def channelwise() -> nn.Sequential:
    """Channel i reaches unit i only, so one bad input spoils one unit; unit 4 is never positive."""
    model = nn.Sequential(nn.Conv1d(6, 6, 1, groups=6), nn.ReLU(), nn.Conv1d(6, 2, 1))
    kill(model[0], 4)
    return model


CASES: dict[str, Case] = {
    "mlp": Case(mlp, MLP_SITES, reference=MLP_REFERENCE),
    "starved": Case(starved_mlp, (MLP_SITES[0], site("3", "2", 8, *range(8))), reference=MLP_REFERENCE),
    "inplace": Case(lambda: mlp(lambda: nn.ReLU(inplace=True)), MLP_SITES, reference=MLP_REFERENCE),
    "accumulation": Case(mlp, MLP_SITES, normal(5, 6, batches=12), MLP_REFERENCE, accumulate=3),
    "varying batches": Case(mlp, MLP_SITES, varying(5, 1, 9, 2, 30), MLP_REFERENCE),
    "empty batch": Case(mlp, MLP_SITES, varying(5, 0, 3, 0, 0), MLP_REFERENCE),
    "sequence": Case(mlp, MLP_SITES, normal(3, 5, 6), MLP_REFERENCE),
    "one sample": Case(mlp, MLP_SITES, normal(6), MLP_REFERENCE),
    "non-finite": Case(
        channelwise, (site("1", "0", 6, 4, axis=1),), with_gaps, sequential({1: "1"}), train=False
    ),
}
