"""A member of the stack as an ordinary network whose parameters are views into the stack's memory.

Code for single networks can thus act on a member, in place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from harness.config import RunSpec
from harness.training.models import build
from harness.training.stacked.parameters import Parameter


class MemberView:
    """One member; also provides its optimizer state (`harness.remedies.OptimizerStateView`).

    Args:
        spec: the member.
        place: its place in the stack.
        parameters: parameters of the stack, with their moments.
        buffers: buffers of the stack.
        shape: shape of one input.
        classes: number of outputs.

    Attributes:
        model: its network.
        step: completed steps, at which a restart resets Adam's count.
    """

    def __init__(
        self,
        spec: RunSpec,
        place: int,
        parameters: Sequence[Parameter],
        buffers: Mapping[str, Tensor],
        shape: tuple[int, ...],
        classes: int,
    ) -> None:
        self.model = build(spec, shape, classes)
        self.step = 0
        self._rows: dict[int, tuple[Parameter, int]] = {}
        for p in parameters:
            if place in p.members and not p.fixed:
                view = nn.Parameter(p.value[p.row(place)])
                owner, leaf = _owner(self.model, p.name)
                setattr(owner, leaf, view)
                self._rows[id(view)] = p, p.row(place)
        for name, buffer in buffers.items():
            owner, leaf = _owner(self.model, name)
            setattr(owner, leaf, buffer[place])

    def tensors(self, parameter: Tensor) -> list[Tensor]:
        """Moments of a parameter of `model`."""
        p, row = self._rows[id(parameter)]
        return [moment[row] for moment in p.moments]

    def restart(self, parameter: Tensor) -> None:
        """Reset Adam's step count of this parameter."""
        p, row = self._rows[id(parameter)]
        p.since[row] = self.step


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    owner, _, leaf = name.rpartition(".")
    return model.get_submodule(owner), leaf
