"""Fixtures of all tests."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import harness

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


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """Nothing that was compiled before is met again; inductor's own warnings are let pass."""
    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings(
            "ignore",
            message=".*grad attribute of a Tensor.*|.*record_function.*|.*online softmax.*|.*TensorFloat32.*",
        )
        yield
    torch.compiler.reset()


@pytest.fixture
def declare() -> Iterator[Callable[..., Any]]:
    """`harness.declare_activation`, taken back after the test."""
    done: list[Any] = []

    def declare(target: Any, **gate: Any) -> Any:
        done.append(harness.declare_activation(target, **gate))
        return done[-1]

    yield declare
    for target in dict.fromkeys(done):
        harness.undeclare_activation(target)


#: Begun first: at the end, one worker would wait for the other.
LONG = tuple(
    f"tests/{name}.py"
    for name in ("test_readme", "test_notebooks", "test_docs", "kernels/test_triton", "sweeps/test_launchers")
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest tests first; all others keep their order."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))
