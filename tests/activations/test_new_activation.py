"""A new activation is one new file: configuration, sheet, hooks and stacks know it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
RECORD = """
import numpy as np
from harness.activations.gates import around_zero
from harness.activations.record import Activation

ACTIVATIONS = (
    Activation(
        "power", ("powers.Power",), lambda p, eps: around_zero(eps / 2), lambda z: z**2, lambda z: 2 * z,
        "z²", spellings=("square",), computed_by="torch.square",
        options={"alpha": ("exponent", 2.0)},
    ),
    Activation(
        "clipped", ("powers.Clipped",), lambda p, eps: around_zero(0.5), lambda z: z, lambda z: z, "z or 0",
        options={}, kernel="hardshrink", constants=lambda p: (0.5,),
    ),
)
"""
MODULE = """
from torch import nn

class Power(nn.Module):
    def __init__(self, exponent):
        super().__init__()
        self.exponent = exponent

    def forward(self, z):
        return z**self.exponent

class Clipped(nn.Hardshrink):
    pass
"""
PROGRAM = """
import sys
import harness.activations
harness.activations.__path__.append(sys.argv[1])
from harness.report.functions import FUNCTIONS, closed
assert FUNCTIONS["power"].formula == "z²" and closed("power", 1.0) == [(-0.5, 0.5)]
assert "torch" not in sys.modules

from harness.config import compose, groups
assert {"power", "clipped"} <= set(groups()["activation"])
assert compose(["activation=power"]).activation.alpha == 2
spec = compose(["activation=power", "activation.alpha=3"])

import torch
from harness.training.models import make_activation
from harness.training.stacked.activations import pair
for chosen in (spec.activation, compose(["activation=clipped"]).activation):
    module = make_activation(chosen, 4)
    z, da = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    a, dz = torch.empty_like(z), torch.empty_like(z)
    with torch.no_grad():
        both = pair(chosen)
        both.forward(z, a)
        both.backward(da, z, a, dz)
    leaf = z.clone().requires_grad_()
    out = module(leaf)
    out.backward(da)
    assert torch.equal(a, out) and torch.equal(dz, leaf.grad)

import harness
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.act = torch.nn.Linear(3, 4), torch.nn.Linear(4, 5), module
        self.power = make_activation(spec.activation, 4)
    def forward(self, x):
        return torch.square(self.b(self.power(self.a(x)))).sum()
model = Net()
with harness.Recorder(model, census_every=None) as recorder:
    for _ in range(3):
        model(torch.randn(6, 3)).backward()
    recorder.census()
    names = {site.name: site.activation for site in recorder.sites}
assert names["power"] == "power" and names[":power"] == "power", names
print("DONE")
"""


def test_one_file_is_enough(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "powers_record.py").write_text(RECORD, "utf-8")
    (tmp_path / "powers.py").write_text(MODULE, "utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, str(tmp_path / "records")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"},
    )
    assert done.stdout.split()[-1:] == ["DONE"], done.stderr


def test_two_records_of_one_name_are_refused(tmp_path: Path) -> None:
    second = RECORD.replace('"power"', '"relu"')
    (tmp_path / "second.py").write_text(second, "utf-8")
    program = (
        f"import harness.activations as a; a.__path__.append({str(tmp_path)!r}); import harness.config.tree"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert "activation relu: expected one record" in done.stderr
