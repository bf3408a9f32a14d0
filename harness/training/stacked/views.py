"""A member of the stack as an ordinary network, whose parameters are views into the stack's memory.

What is written for one network so acts on a member, in place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from harness.config import RunSpec
from harness.training.models import build
from harness.training.stacked.parameters import Parameter


class MemberView:
    """One member; also the state of its optimizer (`harness.remedies.OptimizerStateView`).

    Args:
        spec: of the member.
        place: in the stack.
        parameters: of the stack, with their moments.
        buffers: of the stack.
        shape: of one input.
        classes: outputs.

    Attributes:
        model: its network.
        step: completed steps, from which Adam's count begins again at a restart.
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
                view = nn.Parameter(p.value[p.row(place)], requires_grad=False)
                owner, leaf = _owner(self.model, p.name)
                setattr(owner, leaf, view)
                self._rows[id(view)] = p, p.row(place)
        for name, buffer in buffers.items():
            owner, leaf = _owner(self.model, name)
            setattr(owner, leaf, buffer[place])

    def tensors(self, parameter: Tensor) -> list[Tensor]:
        """The moments of a parameter of `model`."""
        p, row = self._rows[id(parameter)]
        return [moment[row] for moment in p.moments]

    def restart(self, parameter: Tensor) -> None:
        """Let Adam count the steps of this parameter from 0 again."""
        p, row = self._rows[id(parameter)]
        p.since[row] = self.step


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    owner, _, leaf = name.rpartition(".")
    return model.get_submodule(owner), leaf
