"""Where and how a run is computed: device, precision, threads, and a random state that can be repeated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from harness.config import ConfigError, RunSpec
from harness.config.schema import Device, Dtype
from harness.training.randomness import stream

SMALL = ("mlp", "rnn")  # networks too small to benefit from a second thread


def place(spec: RunSpec) -> tuple[torch.device, torch.dtype]:
    """Return the device and parameter dtype of a run.

    Raises:
        ConfigError: device=cuda, but no CUDA device is available.
    """
    gpu = torch.cuda.is_available()
    if spec.device is Device.cuda and not gpu:
        raise ConfigError("device", "no CUDA device is available", hint="Use device=auto or device=cpu.")
    use = spec.device is not Device.cpu and gpu
    return torch.device("cuda" if use else "cpu"), (
        torch.float64 if spec.dtype is Dtype.float64 else torch.float32
    )


@contextmanager
def reproducible(spec: RunSpec) -> Iterator[None]:
    """Set threads, random state and deterministic algorithms for a run; restore the caller's afterwards."""
    threads = torch.get_num_threads()
    own = spec.train.threads or (1 if spec.model.name in SMALL else threads)
    with computing(own), torch.random.fork_rng():
        torch.manual_seed(stream(spec.seed, "global").initial_seed())
        yield


@contextmanager
def computing(threads: int) -> Iterator[None]:
    """Set threads and, on a GPU, deterministic convolutions in full precision; restore both afterwards.

    TF32 would round the inputs of convolutions to 10 bits, differently in a stack than in a single run.
    """
    cudnn: Any = torch.backends.cudnn
    before = torch.get_num_threads()
    flags = cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32
    torch.set_num_threads(threads)
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = True, False, False
    try:
        yield
    finally:
        torch.set_num_threads(before)
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = flags
