"""Earlier home of the functions in `harness.activations.lookup`."""

from harness.activations.lookup import TABLE as TABLE
from harness.activations.lookup import bound as bound
from harness.activations.lookup import compute as compute
from harness.activations.lookup import gate as gate
from harness.activations.lookup import shown as shown
