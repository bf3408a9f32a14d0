"""Fixtures of all tests."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import torch

collect_ignore_glob = ["tracking/trainings/*"]  # programs that a test runs, no modules


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two workers share two cores: more threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def interrupts() -> None:
    """SIGINT is heard, though a background job ignores it, and Lightning does after an interrupt."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


#: Begun first: at the end, one worker would wait for the other.
LONG = tuple(
    f"tests/{name}.py"
    for name in ("test_readme", "test_notebooks", "test_docs", "kernels/test_triton", "sweeps/test_launchers")
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest tests first; all others keep their order."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))
