"""The arrays that a configuration reads."""

from harness.config import compose
from harness.training.sources import RawData, load_arrays


def arrays(*overrides: str) -> RawData:
    return load_arrays(compose(list(overrides)).data)
