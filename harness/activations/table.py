"""Earlier home of `harness.activations.gates` and `harness.activations.lookup`."""

from harness.activations.gates import Gate as Gate
from harness.activations.lookup import MODULES as MODULES
from harness.activations.lookup import known_as as known_as
from harness.activations.lookup import lookup as lookup
