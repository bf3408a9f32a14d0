"""Remedies: surgery on units that do not work, for anybody's PyTorch model."""

from harness.remedies.acts import Act
from harness.remedies.continual import ContinualBackprop
from harness.remedies.leaky import PartlyLeaky, leaky_swap
from harness.remedies.lifting import bias_lift
from harness.remedies.recycle import dormant, redo
from harness.remedies.running import Running, TorchRunning
from harness.remedies.shrink import shrink_perturb
from harness.remedies.surgery import reset_incoming, reset_outgoing
from harness.remedies.surrogate import Sugar, sugar
from harness.remedies.wiring import Junction, Wiring, wire

__all__ = [
    "Act",
    "ContinualBackprop",
    "Junction",
    "PartlyLeaky",
    "Running",
    "Sugar",
    "TorchRunning",
    "Wiring",
    "bias_lift",
    "dormant",
    "leaky_swap",
    "redo",
    "reset_incoming",
    "reset_outgoing",
    "shrink_perturb",
    "sugar",
    "wire",
]
