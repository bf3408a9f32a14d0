"""The GPU's kernels without a GPU: their numbers by Triton's interpreter, and that they can be built."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

import harness
from harness.activations.gates import Gate
from harness.kernels import dispatch as kernels
from harness.kernels import triton as fused
from harness.kernels.accumulators import ACTIVE, Accumulators

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="this build of torch has no Triton")


@needs_triton
def test_numbers_by_the_interpreter() -> None:
    """In a process of its own: whether kernels are interpreted is decided when Triton is imported."""
    triton, numpy = (tuple(map(int, version(name).split(".")[:2])) for name in ("triton", "numpy"))
    if triton < (3, 7) and numpy >= (2, 4):
        pytest.skip("this Triton's interpreter takes arrays of one element for numbers, as older numpy did")
    here = Path(__file__)
    path = os.pathsep.join([str(Path(harness.__file__).parents[1]), str(here.parent)])
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *(str(here.with_name(name)) for name in ("interpreted.py", "test_contract.py"))],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout or "[100%]" in done.stdout


BUILD = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from harness.kernels import triton_kernels as kernels

def build(kernel, constants, **types):
    signature = {name: types.get(name, "constexpr") for name in kernel.arg_names}
    source = triton.compiler.ASTSource(kernel, signature, constants)
    triton.compile(source, target=GPUTarget("cuda", 80, 32), options={"enable_fp_fusion": True})

names = "rows", "width", "positions", "groups", "chunks", "steps", "units", "folded", "n"
whole = dict.fromkeys(names, "i32")
long = sys.argv[1] == "long"
block = {"LONG": long, "KIND": kernels.tl.float32}
block |= {"BLOCK_A": 8, "BLOCK_C": 256} if long else {"BLOCK_A": 32, "BLOCK_C": 64}
kind = "*fp16" if long else "*fp32"
gate = {"EACH": long, "SIMPLE": not long}
build(kernels.observe, gate | block, z=kind, lows="*fp32", bounds="*fp32", parts="*fp64", **whole)
build(kernels.square, block, g=kind, parts="*fp64", **whole)
add = {"BLOCK_K": 64, "BLOCK_F": 16}
build(kernels.commit, add, parts="*fp64", counts="*i64", sums="*fp64", same_forward="i32", **whole)
build(kernels.commit_squares, add, parts="*fp64", sums="*fp64", **whole)
"""


@needs_triton
@pytest.mark.parametrize("positions", ["short", "long"])
def test_can_be_built_for_a_gpu(positions: str, tmp_path: Path) -> None:
    """Triton's compiler needs no GPU, and is stricter than its interpreter."""
    path = str(Path(harness.__file__).parents[1])
    environment = os.environ | {
        "TRITON_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": path,
        "TRITON_INTERPRET": "0",
    }
    done = subprocess.run(
        [sys.executable, "-c", BUILD, positions], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("rows", [1, 7, 128, 100_000])
@pytest.mark.parametrize("units", [1, 10, 64, 4096])
@pytest.mark.parametrize("positions", [1, 2, 31, 32, 49, 3136, 100_000])
def test_a_plan_covers_the_batch(rows: int, units: int, positions: int) -> None:
    shared = fused.plan(rows, units, positions)
    reach = shared.steps * shared.block_a
    assert shared.chunks * reach >= rows > (shared.chunks - 1) * reach
    if not shared.long:
        assert shared.groups * shared.block_c >= shared.width
    assert shared.block_a % 8 == 0  # fewer rows at once in float64
    for block in (shared.block_a, shared.block_c):
        assert block & (block - 1) == 0


def serving(monkeypatch: pytest.MonkeyPatch, **replaced: Any) -> Accumulators:
    """Accumulators that lie on what passes for a GPU."""
    sums = Accumulators(2, "cpu")
    sums.arrays = None
    monkeypatch.setattr(fused, "serves", lambda z: not fused._state["broken"])
    monkeypatch.setattr(fused, "_state", {"broken": False, "kernels": None})
    for name, value in replaced.items():
        monkeypatch.setattr(fused, name, value)
    return sums


def test_kernels_that_cannot_be_built_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __getitem__(self, grid: Any) -> Any:
            raise OSError("no compiler")

    class Kernels:
        observe = square = Broken()

        class tl:
            float32 = float64 = None

    sums, z = serving(monkeypatch, _kernels=Kernels), torch.tensor([[1.0, -1.0]])
    with pytest.warns(UserWarning, match="the GPU's kernels do not work here.*OSError: no compiler"):
        kernels.accumulate(sums, z, -1, Gate(low=0.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kernels.accumulate(sums, z, -1, Gate(low=0.0))
        kernels.accumulate_gradient(sums, z, -1)
    assert sums.counts[ACTIVE].tolist() == [2, 0]


def test_without_triton_plain_torch_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = serving(monkeypatch)
    monkeypatch.setitem(sys.modules, "harness.kernels.triton_kernels", None)
    monkeypatch.delattr(harness.kernels, "triton_kernels", raising=False)
    assert fused._kernels() is None
    kernels.accumulate(sums, torch.tensor([[1.0, -1.0]]), -1, Gate(low=0.0))
    assert sums.counts[ACTIVE].tolist() == [1, 0]


def test_a_cpu_needs_no_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "_kernels", None)  # not callable
    assert not fused.serves(torch.ones(2, 2))
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
    with harness.Recorder(net) as recorder:
        net(torch.ones(3, 2)).sum().backward()
        recorder.step()
    assert recorder.census().n.tolist() == [3, 3]
